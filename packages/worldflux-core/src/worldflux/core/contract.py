"""What a model promises: its capabilities, and the shapes of all that goes in and out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.misshapen import misshapen
from worldflux.core.observations import BARE_KEY, image_or_first
from worldflux.core.spec import ModelIOContract, PredictionSpec, StateSpec
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ContractError
from worldflux.specs import Capability, TensorSpec


class ModelContract:
    """The declarations of a world model and the checks against them."""

    capabilities: frozenset[Capability] | set[Capability] = frozenset()
    obs_spec: dict[str, TensorSpec]
    action_spec: dict[str, TensorSpec]
    assumed: tuple[str, ...] = ()
    """Spaces ("obs", "action") that the caller left out, so that the defaults stand."""

    @property
    def condition_spec(self) -> Mapping[str, TensorSpec]:
        """Further columns of the data (`extra.<name>`, such as labels) that the model takes.

        By name; `loss` reads them from `batch.extra`, everything else as the conditions
        `wf.data.<name>` (B, ...). Without conditions (None) they are unknown.
        """
        return {}

    def supports(self, capability: Capability) -> bool:
        """Whether the model advertises `capability`."""
        return capability in self.capabilities

    def extra_repr(self) -> str:
        """What `repr` says first: the spaces, and which of them nobody asked for."""
        specs = {"obs": self.obs_spec, "action": self.action_spec}
        return "\n".join(
            f"{name} {key!r}: {spec}" + " (assumed: none was given)" * (name in self.assumed)
            for name, space in specs.items()
            for key, spec in space.items()
        )

    @cached_property
    def state_shapes(self) -> dict[str, TensorSpec]:
        """`state_spec` as the seam reads it, once for each model."""
        return dict(self.state_spec().tensors)

    def obs_alias(self) -> str | None:
        """The key that `predictions["obs"]` is another name of; None where "obs" is its own."""
        return None if BARE_KEY in self.obs_spec else image_or_first(self.obs_spec)

    def require(self, capability: Capability, message: str | None = None) -> None:
        """Raise `CapabilityError` unless the model advertises `capability`."""
        if not self.supports(capability):
            own = ", ".join(sorted(self.capabilities)) or "none"
            raise CapabilityError(
                message
                or f"{type(self).__name__} does not support {capability!s}. It supports: {own}."
            )

    @property
    def supports_reward(self) -> bool:
        """Whether the model predicts rewards."""
        return self.supports(Capability.REWARD_PRED)

    @property
    def supports_continue(self) -> bool:
        """Whether the model predicts whether the episode goes on."""
        return self.supports(Capability.CONTINUE_PRED)

    @property
    def supports_planning(self) -> bool:
        """Whether planners can score actions through the model."""
        return self.supports(Capability.PLANNING)

    def state_spec(self) -> StateSpec:
        """The tensors of this model's State; families override."""
        return StateSpec()

    def prediction_spec(self) -> PredictionSpec:
        """What `decode` predicts; families override."""
        return PredictionSpec()

    def io_contract(self) -> ModelIOContract:
        """Everything that goes into and comes out of this model."""
        return ModelIOContract(
            obs=self.obs_spec,
            action=self.action_spec,
            state=self.state_spec(),
            predictions=self.prediction_spec(),
            capabilities=tuple(sorted(str(capability) for capability in self.capabilities)),
        )

    def contract_fingerprint(self) -> str:
        """Stable digest of `io_contract`; saved with weights and checked when they are loaded."""
        return self.io_contract().fingerprint()

    def validate_batch_contract(self, batch: Batch) -> None:
        """Raise `ContractError` where `batch` does not fit this model's spaces."""
        batch.validate()
        _require_keys("Batch obs", batch.obs, self.obs_spec)
        for key, spec in self.obs_spec.items():
            _require_shape(f"Batch obs[{key!r}]", batch.obs[key], spec, lead=2)

    def validate_state_contract(self, state: State) -> None:
        """Raise `ContractError` where `state` does not fit `state_spec`."""
        state.validate()
        spec = self.state_spec().tensors
        _require_keys("State", state.tensors, spec)
        for key, tensor_spec in spec.items():
            _require_shape(f"State[{key!r}]", state.tensors[key], tensor_spec, lead=1)


def _require_keys(where: str, have: Mapping[str, Tensor], wanted: Mapping[str, TensorSpec]) -> None:
    missing = [key for key in wanted if key not in have]
    if missing:
        raise ContractError(
            f"{where} lacks {missing[0]!r}. It has: {', '.join(have) or 'nothing'}."
        )


def _require_shape(where: str, tensor: Tensor, spec: TensorSpec, lead: int) -> None:
    if tuple(tensor.shape[lead:]) != spec.shape:
        raise ContractError(misshapen(where, tuple(tensor.shape), spec, ("B", "T")[:lead]))

"""The five slots of a world model, and how its constructor fills them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from torch import nn

from worldflux.core.interfaces import (
    ActionConditioner,
    Decoder,
    DynamicsModel,
    ObservationEncoder,
    RolloutExecutor,
)
from worldflux.core.trial import Shape, Trial, on_zeros, require_shapes
from worldflux.errors import ContractError
from worldflux.slots import Part, require_importable, take
from worldflux.specs import TensorSpec

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel


class Slots(nn.Module):
    """Where a world model's parts sit; `fill` puts in the caller's or the family's own."""

    observation_encoder: ObservationEncoder | None
    action_conditioner: ActionConditioner | None
    dynamics_model: DynamicsModel | None
    decoder_module: Decoder | None
    rollout_executor: RolloutExecutor | None
    features: dict[str, TensorSpec]
    """What the parts filled so far give for one row of zeros, by name: the encoder's and the
    dynamics' tensors, and "action", the conditioned action. Later parts take their sizes here."""
    gives: dict[str, dict[str, TensorSpec]]
    """The same by slot, the decoder's predictions too."""
    slot_overrides: dict[str, dict[str, Any]]
    """The caller's parts by slot: `{"class": "package.module:Class", **options}`."""

    def _empty_slots(self) -> None:
        self.observation_encoder = None
        self.action_conditioner = None
        self.dynamics_model = None
        self.decoder_module = None
        self.rollout_executor = None
        self.features = {}
        self.gives = {}
        self.slot_overrides = {}
        self._parts: dict[str, Part] = take(cast("WorldModel", self))
        self._default: Callable[[], nn.Module] | None = None

    def fill(
        self,
        slot: str,
        default: Callable[[], nn.Module],
        *,
        expects: Mapping[str, Shape] | None = None,
        trial: Trial | None = None,
    ) -> None:
        """Put the caller's part into `slot` of the model under construction, or `default()`.

        The part is tried on one row of zeros, without gradient and without touching any random
        numbers; `features` then tells later parts their sizes. `expects` are the tensors the
        family needs from it by name: a shape without the batch axis, where None stands for any
        size, or None for any shape. `trial(part)` replaces the pass where a part takes more, and
        gives its tensors by name. `ContractError` names slot, expected and found.
        """
        if slot in self.slot_overrides:
            return  # the caller's, put in before (rollout_executor)
        part = self._parts.pop(slot, None)
        if part is None:
            module = default()
        else:
            self._default = default
            module = part.build(cast("WorldModel", self))
            self._default = None
            self.slot_overrides[slot] = part.to_json()
        setattr(self, slot, module)
        model = cast("WorldModel", self)
        found = on_zeros(model, slot, module, trial, foreign=part is not None)
        require_shapes(model, slot, found, expects or {})
        self.gives[slot] = {
            name: TensorSpec(tuple(tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in found.items()
        }
        if slot != "decoder_module":
            self._learn(slot)

    def default_part(self) -> nn.Module:
        """The part that the family would put into the slot being filled, for one that wraps it.

        Only inside the constructor of a part: `Class(model)` may call `model.default_part()`.
        """
        if self._default is None:
            raise ContractError(
                f"{type(self).__name__}.default_part() is there for a part's constructor, while "
                "the slot is being filled."
            )
        return self._default()

    def slot_parts(self) -> dict[str, dict[str, Any]]:
        """The caller's parts as they are saved; one that cannot be imported again is refused."""
        for slot, plain in self.slot_overrides.items():
            require_importable(Part(slot, None, plain["class"]))
        return {slot: dict(plain) for slot, plain in self.slot_overrides.items()}

    def _learn(self, slot: str) -> None:
        for name, spec in self.gives[slot].items():
            before = self.features.get(name)
            if before is not None and before.shape != spec.shape:
                raise ContractError(
                    f"{type(self).__name__}.{slot}: {name!r} has shape {spec.shape}, the part "
                    f"before it gives {before.shape}."
                )
            self.features[name] = spec

    @overload
    def slot(
        self, name: Literal["observation_encoder"], operation: str = ...
    ) -> ObservationEncoder: ...
    @overload
    def slot(
        self, name: Literal["action_conditioner"], operation: str = ...
    ) -> ActionConditioner: ...
    @overload
    def slot(self, name: Literal["dynamics_model"], operation: str = ...) -> DynamicsModel: ...
    @overload
    def slot(self, name: Literal["decoder_module"], operation: str = ...) -> Decoder: ...
    @overload
    def slot(self, name: Literal["rollout_executor"], operation: str = ...) -> RolloutExecutor: ...
    def slot(self, name: str, operation: str = "this") -> nn.Module:
        """The part in slot `name`; `NotImplementedError` says what `operation` lacks."""
        module: nn.Module | None = getattr(self, name)
        if module is None:
            raise NotImplementedError(
                f"{type(self).__name__} has no {name}: {operation} needs one."
            )
        return module

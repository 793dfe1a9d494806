"""The base of every world model: five slots, and the operations that run through them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldflux.config import Config
from worldflux.core.actions import Actions, action_tensor, no_actions
from worldflux.core.async_twins import AsyncTwins
from worldflux.core.batch import Batch
from worldflux.core.contract import ModelContract
from worldflux.core.decoding import decode
from worldflux.core.filling import Slots
from worldflux.core.interfaces import Policy
from worldflux.core.observations import Observation, observed
from worldflux.core.output import LossOutput, ModelOutput
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.rollout import AutoregressiveRollout
from worldflux.core.seam import MODEL_ENTRIES, Seam
from worldflux.core.sequence import features_of, observe_sequence
from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory
from worldflux.errors import ContractError
from worldflux.nn.device import device_of
from worldflux.saving import save_pretrained
from worldflux.specs import Capability, TensorSpec, only_action

__all__ = ["Observation", "WorldModel"]


class WorldModel(Seam, ModelContract, AsyncTwins, Slots, ABC):
    """A learned model of an environment, composed of five replaceable slots.

    A family fills the slots in its constructor (`fill`) and defines `loss`, which runs through the
    same slots; `composable_support` names those whose replacement takes effect. Observations are
    dicts of (B, ...) tensors as in `obs_spec`; a bare tensor stands for the only key.
    A model without spaces declares nothing and checks nothing.
    """

    entries = MODEL_ENTRIES
    composable_support: frozenset[str] | set[str] = frozenset()
    input_support: frozenset[str] | set[str] = frozenset()
    """Parts of a `WorldModelInput` besides the observations that this model's `encode` uses:
    "context", "action", "conditions". Any other part is refused, never ignored."""
    api_version: str = "v3"
    loss_spans_batch: bool = False
    """Whether `loss` depends on the batch as a whole (its statistics, say), not row by row."""
    starts_anew: bool = False
    """Of a generator of single images: a transition is a new sample, whatever State it is from."""
    action: TensorSpec | None
    """The space of one action, None where there is none: that of `action_spec`, or blocks of it
    (`stride`); a family may set its own before it fills its slots (a video's latent actions)."""
    action_code: TensorSpec | None = None
    """Of a model that also takes the vector a choice of action stands for (Genie's codes)."""
    constant_predictions: frozenset[str] = frozenset()
    """Predictions that are the same for every State on purpose (a fixed discount, say)."""

    stride: int = 1
    """Steps of an environment that one step of this model spans; see `Phase.stride`."""

    def __init__(
        self,
        config: Config | None = None,
        obs_spec: Mapping[str, TensorSpec] | None = None,
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        super().__init__()
        self.config = config if config is not None else Config()
        self.obs_spec = dict(obs_spec or {})
        self.action_spec = dict(action_spec or {})
        self.action = only_action(self.action_spec, type(self).__name__, self.stride)
        self._empty_slots()
        self.fill("rollout_executor", AutoregressiveRollout)
        self.provenance: dict[str, Any] = {}

    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def required_action(self) -> TensorSpec:
        """The space of one action; `ContractError` for a model without actions."""
        if self.action is None:
            raise ContractError(f"{type(self).__name__} needs an action space, got none.")
        return self.action

    def observations(self, obs: Observation) -> dict[str, Tensor]:
        """Any accepted form of observation as a dict (B, ...) by key, its shapes checked."""
        return observed(obs, self.obs_spec, self, type(self).__name__, self.input_support)

    def condition(
        self, action: ActionPayload | Tensor | None, conditions: ConditionPayload | None = None
    ) -> Tensor:
        """The conditioned action (B, A') that the dynamics takes, of an action (B, ...)."""
        if conditions is not None:
            conditions.validate(api_version=self.api_version)
        tensor = action_tensor(action, self.api_version)
        if tensor is None and not self.supports(Capability.UNCONDITIONAL):
            raise ContractError(f"{type(self).__name__} needs an action, got None.")
        if self.action_conditioner is None:
            if tensor is None:
                raise ContractError(f"{type(self).__name__} has no action_conditioner for None.")
            return tensor
        conditioned: Tensor = self.action_conditioner(tensor, conditions)
        return conditioned

    @property
    def recurrent(self) -> bool:
        """Whether the State depends on history, so that `observe` needs the previous one."""
        return bool(getattr(self.dynamics_model, "recurrent", False))

    # Inference

    def initial(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """The State before anything was seen, of a recurrent model."""
        return self.slot("dynamics_model", "initial").initial(
            batch_size, torch.device(device) if device is not None else device_of(self)
        )

    def encode(
        self,
        obs: Observation,
        deterministic: bool = False,
        *,
        rand: Rand | None = None,
    ) -> State:
        """Observations (B, ...) to a State, as the first of an episode."""
        encoder = self.slot("observation_encoder", "encode")
        features: State = encoder(self.observations(obs))
        if not self.recurrent:
            return features
        rows, device = features.batch_size, features.device
        first = torch.ones(rows, dtype=torch.bool, device=device)
        nothing, before = self._no_action(rows, device), self.initial(rows, device)
        return self._posterior(before, nothing, features, first, deterministic, rand)

    def transition(
        self,
        state: State,
        action: ActionPayload | Tensor | None,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        *,
        rand: Rand | None = None,
    ) -> State:
        """The next State (B, ...) predicted without an observation (the prior)."""
        dynamics = self.slot("dynamics_model", "transition")
        return dynamics.transition(
            state,
            self.condition(self._given(action, state), conditions),
            deterministic=deterministic,
            rand=rand,
        )

    def observe(
        self,
        state: State,
        action: ActionPayload | Tensor | None,
        obs: Observation,
        is_first: Tensor,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        *,
        rand: Rand | None = None,
    ) -> State:
        """The State after `action` led to `obs`; rows with `is_first` (B,) start anew."""
        if not self.recurrent:
            if not self.supports(Capability.STATELESS):
                raise NotImplementedError(
                    f"{type(self).__name__} does not define update. Give it a recurrent "
                    "dynamics_model, or declare Capability.STATELESS if encode(obs) is its update."
                )
            return self.encode(obs, deterministic, rand=rand)
        steps = {key: value[:, None] for key, value in self.observations(obs).items()}
        features = features_of(self, state, steps, is_first[:, None]).at(0)
        conditioned = self.condition(self._given(action, state), conditions)
        return self._posterior(state, conditioned, features, is_first, deterministic, rand)

    def update(
        self,
        state: State,
        action: ActionPayload | Tensor | None,
        obs: Observation,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        *,
        rand: Rand | None = None,
    ) -> State:
        """The State after `action` (B, ...) led to `obs` (the posterior)."""
        going_on = torch.zeros(state.batch_size, dtype=torch.bool, device=state.device)
        return self.observe(state, action, obs, going_on, conditions, deterministic, rand=rand)

    def decode(
        self,
        state: State,
        conditions: ConditionPayload | None = None,
        *,
        keys: Collection[str] | None = None,
        rand: Rand | None = None,
    ) -> ModelOutput:
        """Predictions (B, ...) from a State; only `keys`, where given (images are costly).

        A State (B, T, ...) gives predictions (B, T, ...); the decoder sees B * T rows.
        `predictions["obs"]` is the decoded observation: the image if there is one, else the first.
        """
        return decode(self, state, conditions, keys, rand)

    def rollout(
        self,
        initial_state: State,
        action_sequence: Actions | Policy | None,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        mode: str = "autoregressive",
        **options: Any,
    ) -> Trajectory:
        """Imagine from `initial_state` along actions (T, B, ...), or a policy with `horizon=`.

        Options: `decode=True` also decodes observations; forced tensors of `rand` are (T, B, ...).
        """
        if mode != "autoregressive":
            raise ValueError(f"Unknown rollout mode {mode!r}. The only mode is 'autoregressive'.")
        executor = self.slot("rollout_executor", "rollout")
        trajectory: Trajectory = executor(
            self,
            initial_state,
            action_sequence,
            conditions,
            deterministic=deterministic,
            **options,
        )
        return trajectory

    def observe_sequence(
        self, batch: Batch, start: State | None = None, *, rand: Rand | None = None
    ) -> State:
        """The States (B, T', ...) of the steps after `batch.context`, each given what came before.

        Actions are shifted here: `action[t-1]` precedes `obs[t]`, zeros precede the first. `start`
        is the State (B, ...) before the first step. Context steps are replaced by the latents
        stored with them where the family defines `restored`, else observed without gradient. A
        model that is not recurrent encodes every step by itself.
        """
        return observe_sequence(self, batch, start, rand)

    def restored(self, stored: Mapping[str, Tensor]) -> State | None:
        """The State (B, ...) that `stored` values (B, ...) of one step stand for.

        None, as by default, where this model's States cannot be had from what replay keeps.
        """
        return None

    def plan_step(
        self,
        state: State,
        action: ActionPayload | Tensor | None,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        *,
        rand: Rand | None = None,
    ) -> State:
        """One step of rows (B, ...) as a planner takes it; may be cheaper than `transition`."""
        return self.transition(state, action, conditions, deterministic, rand=rand)

    def sample_step(
        self,
        state: State,
        action: ActionPayload | Tensor | None = None,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        *,
        rand: Rand | None = None,
    ) -> ModelOutput:
        """Step with `action` (B, ...) if one is given, then decode."""
        if action is not None:
            state = self.transition(state, action, conditions, deterministic, rand=rand)
        return self.decode(state, conditions, rand=rand)

    def teacher_forcing_step(
        self,
        state: State,
        action: ActionPayload | Tensor,
        obs: Observation,
        conditions: ConditionPayload | None = None,
    ) -> State:
        """One step by `action` (B, ...), fed with the true observation."""
        return self.update(state, action, obs, conditions)

    # Training and storage

    @abstractmethod
    def loss(
        self,
        batch: Batch,
        part: str | None = None,
        *,
        rand: Rand | None = None,
    ) -> LossOutput:
        """The model's loss on a Batch, through the same slots as inference.

        `part` is the name of a phase that trains the model; None stands for the sum of all.
        """

    def save_pretrained(self, path: str | Path) -> Path:
        """Write weights, configuration and identity to folder `path` (see `worldflux.saving`)."""
        return save_pretrained(self, path)

    def _posterior(
        self,
        state: State,
        action: Tensor,
        features: State,
        is_first: Tensor,
        deterministic: bool,
        rand: Rand | None,
    ) -> State:
        return self.slot("dynamics_model", "observe").observe(
            state,
            action,
            features,
            is_first,
            deterministic=deterministic,
            rand=rand,
        )

    def _given(
        self, action: ActionPayload | Tensor | None, state: State
    ) -> ActionPayload | Tensor | None:
        """`action`; of no size (B, 0) where None is given to a model that has none."""
        bare = self.action is None and self.action_conditioner is None
        if action is not None or not bare or not self.supports(Capability.UNCONDITIONAL):
            return action
        return no_actions(None, (state.batch_size,), state.device)

    def _no_action(self, batch_size: int, device: torch.device) -> Tensor:
        return self.condition(no_actions(self.action, (batch_size,), device))

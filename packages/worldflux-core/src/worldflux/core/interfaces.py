"""The five slots a world model is composed of.

A slot is any `nn.Module` with these methods; the classes here are convenient bases. Everything
works on a flat batch (B, ...); sequence forms add a time axis (B, T, ...) and agree with the step
form to float precision. Functions that sample ask `rand` for tensors by name (see `core/rand.py`).
A class that a caller puts into a slot is constructed as `Class(model, **options)`, with the model
it will sit in, while that is being built (`core/filling.py`).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from worldflux.core.output import ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory
from worldflux.slots import SLOTS as SLOTS

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel

Policy = Callable[[State, int], Tensor | tuple[Tensor, State]]
"""Chooses actions (B, ...) from a State (B, ...) at imagined step t.

It may also return the State with tensors of its own (an LSTM's, a frame it decoded): they go on in
the rollout, so that the next call finds them.
"""


class ObservationEncoder(nn.Module, ABC):
    """Observations to a State: the latent itself, or features a recurrent dynamics consumes."""

    sees_history: bool = False
    """Of an encoder whose features depend on earlier observations (a video tokenizer): core asks
    `sequence` then, and `forward` is for first observations."""

    @abstractmethod
    def forward(self, obs: dict[str, Tensor]) -> State:
        """(B, ...) per key -> State (B, ...)."""

    def sequence(self, state: State, obs: dict[str, Tensor], is_first: Tensor) -> State:
        """Features (B, T, ...) of observations (B, T, ...) that follow on a State (B, ...).

        Steps where `is_first` (B, T) holds, and all after them, have forgotten what was before.
        """
        raise NotImplementedError(f"{type(self).__name__} sees no history: it has no sequence.")


class ActionConditioner(nn.Module, ABC):
    """Actions and conditions to the one tensor the dynamics takes."""

    @abstractmethod
    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        """Action (..., A), indices (...) or one-hot -> (..., A')."""


class DynamicsModel(nn.Module, ABC):
    """The latent dynamics: `transition` is the prior, `observe` the posterior.

    A feed-forward family leaves `recurrent` False and implements `transition` only. A recurrent
    one sets it and implements `initial` and `observe` too.
    """

    recurrent: bool = False

    def initial(self, batch_size: int, device: torch.device) -> State:
        """The State (B, ...) before anything was seen."""
        raise NotImplementedError(f"{type(self).__name__} is not recurrent: it has no initial.")

    @abstractmethod
    def transition(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        """The next State predicted from State (B, ...) and conditioned action (B, A')."""

    def stages(
        self, state: State, action: Tensor, *, rand: Rand | None = None
    ) -> Mapping[str, Tensor]:
        """How a transition from State (B, ...) by conditioned action (B, A') comes about.

        Images (S, B, C, Y, X) in [0, 1] of its S stages, by name, for `worldflux imagine`; none by
        default.
        """
        return {}

    def observe(
        self,
        state: State,
        action: Tensor,
        features: State,
        is_first: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        """The posterior after `action` (B, A') and the observation's features (B, ...).

        Rows where `is_first` (B,) holds forget `state` and `action`.
        """
        raise NotImplementedError(f"{type(self).__name__} is not recurrent: it has no observe.")

    def observe_sequence(
        self,
        state: State,
        action: Tensor,
        features: State,
        is_first: Tensor,
        *,
        rand: Rand | None = None,
    ) -> State:
        """`observe` over (B, T, ...); `action[:, t]` precedes `features[:, t]`.

        This slow form makes every recurrent dynamics trainable; families override it. Tensors
        that `rand` forces are (B, T, ...).
        """
        states = []
        for t in range(is_first.shape[1]):
            state = self.observe(
                state,
                action[:, t],
                features.at(t),
                is_first[:, t],
                rand=None if rand is None else rand.at(t, dim=1),
            )
            states.append(state)
        return State.stack(states)


class Decoder(nn.Module, ABC):
    """A State to predictions: observations by their key, "reward", "continue" (probability).

    A decoder that draws also has the keyword-only argument `rand`.
    """

    arguments: frozenset[str] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.arguments = _arguments(cls.forward)

    @abstractmethod
    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> Mapping[str, Tensor] | ModelOutput:
        """Predictions (B, ...) for `keys`, or all; computes nothing that is not asked for."""


def forward_arguments(decoder: nn.Module) -> frozenset[str]:
    """Names of what a decoder's `forward` takes; read once per class, as compiled code cannot."""
    known: frozenset[str] | None = getattr(decoder, "arguments", None)
    return known if known is not None else _arguments(type(decoder).forward)


def _arguments(function: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return frozenset({*parameters, "conditions", "rand"})
    return frozenset(parameters)


class RolloutExecutor(nn.Module, ABC):
    """Runs the model forward: chains `transition`, then decodes what is needed at once."""

    @abstractmethod
    def forward(
        self,
        model: WorldModel,
        state: State,
        actions: Tensor | Policy,
        conditions: ConditionPayload | None = None,
        **options: Any,
    ) -> Trajectory:
        """From State (B, ...) and actions (H, B, ...), or a policy and `horizon`."""

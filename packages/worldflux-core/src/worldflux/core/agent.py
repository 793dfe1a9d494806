"""Who acts: a learner with a policy or a planner. `Learner` is offered here beside it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from worldflux.core.learner import Learner
from worldflux.core.payloads import ActionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.core.zeros import zeros_of
from worldflux.nn.device import device_of

__all__ = ["Agent", "Learner", "Mode"]

Mode = Literal["train", "eval"]


class Agent(Learner):
    """A Learner that also acts in an environment."""

    @property
    def plans(self) -> bool:
        """Whether it searches for its actions, which makes acting slow."""
        return False

    @abstractmethod
    def act(
        self,
        obs: Mapping[str, Tensor],
        state: State | None,
        is_first: Tensor,
        mode: Mode = "eval",
        *,
        rand: Rand | None = None,
    ) -> tuple[ActionPayload, State]:
        """Actions (B, ...) for observations (B, ...), and the State to hand back next time.

        `state` is None at the very start; rows with `is_first` (B,) forget it. `mode` "train"
        explores, "eval" does not. Continuous actions are in [-1, 1], discrete ones are indices.
        """

    @property
    def remembers(self) -> bool:
        """Whether acting needs its State kept up in steps whose action comes from elsewhere.

        By default: a recurrent world model's latent, a replay column, or any tensor in the State
        of the first `act` (on a zero observation) says so. State it where that is too much.
        """
        if self.world_model.recurrent or self.replay_spec:
            return True
        device = device_of(self)
        zeros = zeros_of(self.obs_spec, (1,), device)
        first = torch.ones(1, dtype=torch.bool, device=device)
        with torch.no_grad():
            _, state = self.act(zeros, None, first, rand=Rand.seeded(0, device))
        return bool(state.tensors)

    def acting_weights(self) -> dict[str, Tensor]:
        """What `act` and `observe` need, under names of `state_dict`: all, unless overridden.

        It is copied for the actor whenever it gets new weights; what never acts can stay out.
        """
        return self.state_dict()

    def observe(
        self,
        obs: Mapping[str, Tensor],
        state: State | None,
        is_first: Tensor,
        *,
        rand: Rand | None = None,
    ) -> State:
        """The State after observations (B, ...) whose action comes from elsewhere (see `took`).

        Rows with `is_first` (B,) forget `state`.
        Override it where choosing an action costs more than keeping the State up.
        """
        return self.act(obs, state, is_first, "train", rand=rand)[1]

    def took(self, state: State, action: Tensor) -> State:
        """`state` told of the action (B, ...) that was really executed, by its "action"."""
        if "action" not in state:
            return state
        return state.with_({"action": action.to(state.device)})

    def replay_values(self, state: State) -> dict[str, Tensor]:
        """The `replay_spec` columns (B, ...) out of the State that `act` returned."""
        return {}

"""What a game of ours is: pure functions of batched tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldflux_envs.boundary.actions import Choices

GameState = dict[str, Tensor]


class Game(ABC):
    """Dynamics, observations, pictures and an oracle policy, each for N rows at once.

    States are dicts of tensors (N, ...); `seed` and `t` are kept by the caller. Everything random
    follows from `seed`, so that a row does not depend on the rows beside it.
    """

    name: ClassVar[str]
    horizon: ClassVar[int]
    chances: ClassVar[int]
    """How many uniform numbers a reset consumes."""
    features: ClassVar[int]
    """Length of the vector observation."""
    choices: ClassVar[int | None] = None
    """Number of discrete actions; None: `controls` continuous ones in [-1, 1]."""
    labels: ClassVar[tuple[str, ...] | None] = None
    """The names of the choices."""
    controls: ClassVar[int] = 1
    has_goal: ClassVar[bool] = False

    @abstractmethod
    def reset(self, chance: Tensor) -> GameState:
        """The first states from uniform numbers (N, chances)."""

    @abstractmethod
    def step(self, state: GameState, action: Tensor) -> tuple[GameState, Tensor, Tensor]:
        """Next states, rewards (N,) and whether the episode terminated (N,)."""

    @abstractmethod
    def vector(self, state: GameState) -> Tensor:
        """The vector observation (N, features)."""

    @abstractmethod
    def picture(self, state: GameState, size: int) -> Tensor:
        """Images (N, 3, size, size) uint8."""

    @abstractmethod
    def oracle(self, state: GameState) -> Tensor:
        """Good actions, from the true state."""

    def goal(self, state: GameState) -> GameState:
        """The state a goal-conditioned game wants to be in."""
        raise NotImplementedError(f"{self.name} has no goal.")

    def aimed(self, state: GameState, at: GameState) -> GameState:
        """`state` with the goal of being where `at` is."""
        raise NotImplementedError(f"{self.name} has no goal.")

    def position(self, state: GameState) -> Tensor | None:
        """Where the player is in the picture (N, 2), x right and y down in [0, 1], if it knows."""
        return None

    def action_space(self) -> spaces.Space[np.ndarray] | spaces.Discrete:
        """Discrete choices, or continuous controls in [-1, 1]."""
        if self.choices is not None:
            return Choices(self.choices, self.labels)
        return spaces.Box(-1.0, 1.0, (self.controls,), np.float32)

    def observation_space(self, obs: str, size: int) -> spaces.Dict:
        """Of `observe` with the same arguments."""
        vector = spaces.Box(-np.inf, np.inf, (self.features,), np.float32)
        image = spaces.Box(0, 255, (3, size, size), np.uint8)
        found: dict[str, spaces.Space[np.ndarray]] = {}
        if obs != "pixels":
            found["state"] = vector
        if obs != "state":
            found["image"] = image
        if self.has_goal:
            found["goal"] = vector if obs == "state" else image
        return spaces.Dict(found)

    def observe(self, state: GameState, obs: str, size: int) -> dict[str, Tensor]:
        """Observations: `obs` is state, pixels or both; the goal is a picture unless `state`."""
        found = {}
        if obs != "pixels":
            found["state"] = self.vector(state).float()
        if obs != "state":
            found["image"] = self.picture(state, size)
        if self.has_goal:
            goal = self.goal(state)
            found["goal"] = (
                self.vector(goal).float() if obs == "state" else self.picture(goal, size)
            )
        return found


def where(mask: Tensor, left: GameState, right: GameState) -> GameState:
    """Rows of `left` where `mask` (N,) holds, of `right` elsewhere."""
    return {
        key: torch.where(mask.reshape(-1, *[1] * (value.ndim - 1)), value, right[key])
        for key, value in left.items()
    }

"""Crafter as a Gymnasium environment, with the same episode for the same seed."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import crafter
import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux_envs.boundary.actions import Choices


class _Ordered(dict[Any, None]):
    """A set in order of insertion."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]


class _OrderedWorld(crafter.engine.World):  # type: ignore[misc]
    """Crafter's world keeps its creatures in sets, whose order depends on memory addresses."""

    def reset(self, seed: int | None = None) -> None:
        super().reset(seed)
        self._chunks: Any = defaultdict(_Ordered)


class CrafterEnv(gymnasium.Env[Any, Any]):
    """The open world survival game; `info["achievements"]` counts what was unlocked."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's form

    def __init__(
        self,
        *,
        size: tuple[int, int] = (64, 64),
        reward: bool = True,
        length: int = 10_000,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self._game = crafter.Env(size=size[::-1], reward=reward, length=length, seed=0)
        self._game._world.__class__ = _OrderedWorld
        self.observation_space = spaces.Box(0, 255, (*size, 3), np.uint8)
        names = tuple(self._game.action_names)
        self.action_space = Choices(len(names), names)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        # The game's own seed is a hash of these two.
        self._game._seed = int(self.np_random.integers(2**31 - 1)) if seed is None else seed
        self._game._episode = 0
        return self._game.reset(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, over, info = self._game.step(int(action))
        dead = info["discount"] == 0
        kept = {"achievements": info["achievements"], "inventory": info["inventory"]}
        return obs, float(reward), bool(dead), bool(over and not dead), kept

    def render(self) -> Any:
        return self._game.render((512, 512))

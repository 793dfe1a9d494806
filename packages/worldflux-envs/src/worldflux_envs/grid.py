"""MiniGrid's observations for models: a picture, or one-hot cells and direction."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

from worldflux_envs.boundary.actions import Choices
from worldflux_envs.wrappers.layer import Layer

_KINDS = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX) + 1)
_DIRECTIONS = 4


class GridObservation(Layer):
    """`state`, `image` or both of the agent's view or the `full` grid; info has the mission."""

    def __init__(self, env: gymnasium.Env[Any, Any], *, obs: str, full: bool, tile: int) -> None:
        super().__init__(env, obs=obs, full=full, tile=tile)
        self._obs, self._full, self._tile = obs, full, tile
        grid: Any = env.unwrapped
        cells = grid.width * grid.height if full else grid.agent_view_size**2
        parts: dict[str, spaces.Space[Any]] = {}
        if obs != "pixels":
            size = cells * sum(_KINDS) + _DIRECTIONS
            parts["state"] = spaces.Box(0.0, 1.0, (size,), np.float32)
        if obs != "state":
            self.env.reset(seed=0)
            parts["image"] = spaces.Box(0, 255, self._picture().shape, np.uint8)
        self.observation_space = spaces.Dict(parts)
        if isinstance(env.action_space, spaces.Discrete):
            names = tuple(action.name for action in grid.actions)
            self.action_space = Choices(int(env.action_space.n), names)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._observed(obs), {**info, "mission": obs["mission"]}

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "mission": obs["mission"]}
        return self._observed(obs), reward, terminated, truncated, info

    def _observed(self, obs: dict[str, Any]) -> dict[str, np.ndarray]:
        parts = {}
        if self._obs != "pixels":
            cells = self._whole() if self._full else obs["image"]
            parts["state"] = _one_hot(cells, int(obs["direction"]))
        if self._obs != "state":
            parts["image"] = self._picture()
        return parts

    def _picture(self) -> np.ndarray:
        grid: Any = self.env.unwrapped
        return grid.get_frame(highlight=self._full, tile_size=self._tile, agent_pov=not self._full)

    def _whole(self) -> np.ndarray:
        """All cells, the agent's own among them."""
        grid: Any = self.env.unwrapped
        cells = grid.grid.encode()
        agent = (OBJECT_TO_IDX["agent"], COLOR_TO_IDX["red"], grid.agent_dir)
        cells[grid.agent_pos] = agent
        return cells


def _one_hot(cells: np.ndarray, direction: int) -> np.ndarray:
    """(X, Y, 3) object, colour and state indices, one-hot each, then the direction."""
    flat = cells.reshape(-1, len(_KINDS))
    parts = [np.eye(n, dtype=np.float32)[flat[:, k]] for k, n in enumerate(_KINDS)]
    facing = np.eye(_DIRECTIONS, dtype=np.float32)[direction]
    return np.concatenate([np.concatenate(parts, axis=1).reshape(-1), facing])

"""Craftax on JAX as a Gymnasium environment."""

from __future__ import annotations

from functools import cache
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from craftax.craftax_env import make_craftax_env_from_name
from gymnasium import spaces


@cache
def _game(name: str, length: int) -> tuple[Any, Any, Any]:
    """The game and its compiled reset and step; compiled once per process."""
    game = make_craftax_env_from_name(name, auto_reset=False)
    params = game.default_params.replace(max_timesteps=length)

    def reset(key: Any) -> Any:
        return game.reset(key, params)

    def step(key: Any, state: Any, action: Any) -> Any:
        obs, state, reward, done, info = game.step(key, state, action, params)
        achieved = {k: v for k, v in info.items() if k.startswith("Achievements/")}
        return obs, state, reward, done, info["discount"] == 0, achieved

    return game, jax.jit(reset), jax.jit(step)


class CraftaxEnv(gymnasium.Env[Any, Any]):
    """`Craftax` or `Craftax-Classic`, `Symbolic` (a vector) or `Pixels`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's form

    def __init__(self, name: str, *, length: int = 10_000, render_mode: str | None = None) -> None:
        self._game, self._reset, self._step = _game(name, length)
        self.render_mode, self._length = render_mode, length
        self._pixels = "Pixels" in name
        shape = self._game.observation_space(self._game.default_params).shape
        self.observation_space: spaces.Space[Any] = spaces.Box(0, 255, shape, np.uint8)
        if not self._pixels:
            self.observation_space = spaces.Box(-np.inf, np.inf, shape, np.float32)
        self.action_space = spaces.Discrete(int(self._game.action_space().n))
        self._key: Any = None
        self._state: Any = None
        self._frame: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**31 - 1)) if seed is None else seed
        self._key, key = jax.random.split(jax.random.PRNGKey(chosen))
        obs, self._state = self._reset(key)
        return self._observed(obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._key, key = jax.random.split(self._key)
        obs, self._state, reward, over, dead, achieved = self._step(key, self._state, int(action))
        info = {"achievements": {k.split("/")[1]: float(v) > 0 for k, v in achieved.items()}}
        terminated = bool(dead)
        return self._observed(obs), float(reward), terminated, bool(over) and not terminated, info

    def render(self) -> Any:
        return self._frame if self._pixels else None

    def get_state(self) -> dict[str, Any]:
        """The game's arrays and its random key."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(self._state)]
        return {"leaves": leaves, "key": np.asarray(self._key)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` gave, after a reset."""
        leaves = [jnp.asarray(leaf) for leaf in state["leaves"]]
        self._state = jax.tree.unflatten(jax.tree.structure(self._state), leaves)
        self._key = jnp.asarray(state["key"])

    def _observed(self, obs: Any) -> np.ndarray:
        if not self._pixels:
            return np.asarray(obs, np.float32)
        self._frame = np.rint(np.asarray(obs) * 255).astype(np.uint8)
        return self._frame.copy()

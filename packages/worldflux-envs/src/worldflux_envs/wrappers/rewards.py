"""The reward as an observation, for agents that are to see it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs.boundary.observations import refuse_heads
from worldflux_envs.wrappers.layer import Layer


class RewardObs(Layer):
    """Adds the reward that came with the observation under `key`, shape (1,), 0 at a reset."""

    def __init__(self, env: gymnasium.Env[Any, Any], key: str = "last_reward") -> None:
        super().__init__(env, key=key)
        if not isinstance(env.observation_space, spaces.Dict):
            raise EnvError("RewardObs needs Dict observations; use ObsDict first.")
        refuse_heads([key], "`key`")
        if key in env.observation_space.spaces:
            raise EnvError(f"RewardObs: there is an observation {key!r} already; give another key.")
        self._key = key
        reward = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = spaces.Dict({**env.observation_space.spaces, key: reward})

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return {**obs, self._key: np.zeros(1, np.float32)}, info

    def step(self, action: Any) -> Any:
        obs, reward, *rest = self.env.step(action)
        return {**obs, self._key: np.array([reward], np.float32)}, reward, *rest

"""The contract as wrappers: Dict observations, actions in [-1, 1] or int64 indices."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs.spaces import canonical_action, canonical_observation
from worldflux_envs.wrappers.layer import Layer


class Contract(Layer):
    """Any Gymnasium environment with canonical observations, actions and reward type."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space, self._observation = canonical_observation(env.observation_space)
        self.action_space, self._action = canonical_action(env.action_space)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._observation(obs), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(self._action(action))
        return self._observation(obs), float(reward), bool(terminated), bool(truncated), info


class ObsDict(Layer):
    """One observation as a Dict under `key`, of any kind the contract knows."""

    def __init__(self, env: gymnasium.Env[Any, Any], key: str = "state") -> None:
        super().__init__(env, key=key)
        if isinstance(env.observation_space, spaces.Dict | spaces.Tuple):
            raise EnvError(f"ObsDict names one observation; this has {env.observation_space}.")
        space, convert = canonical_observation(env.observation_space)
        [(self._from, leaf)] = space.spaces.items()
        self._key, self._convert = key, convert
        self.observation_space = spaces.Dict({key: leaf})

    def _named(self, obs: Any) -> dict[str, Any]:
        return {self._key: self._convert(obs)[self._from]}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._named(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, *rest = self.env.step(action)
        return self._named(obs), *rest  # type: ignore[return-value]

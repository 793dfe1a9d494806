"""Wrappers on the way in: what the agent chooses becomes what the environment takes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux.errors import EnvError, did_you_mean
from worldflux_envs.boundary.actions import canonical_action
from worldflux_envs.boundary.finite import as_reward
from worldflux_envs.boundary.protocol import stepped
from worldflux_envs.wrappers.layer import Layer


class NormalizeActions(Layer):
    """Continuous actions in [-1, 1], clipped and rescaled to the environment's bounds."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Box):
            raise EnvError(f"NormalizeActions needs continuous actions, not {env.action_space}.")
        self.action_space, self._convert = canonical_action(env.action_space)

    def step(self, action: Any) -> Any:
        return self.env.step(self._convert(action))


class OneHotAction(Layer):
    """A discrete action as a vector of [0, 1]; the largest entry is the choice."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Discrete):
            raise EnvError(f"OneHotAction needs discrete actions, not {env.action_space}.")
        self._start = int(env.action_space.start)
        self.action_space = spaces.Box(0.0, 1.0, (int(env.action_space.n),), np.float32)

    def step(self, action: Any) -> Any:
        if np.shape(action) != self.action_space.shape:
            raise EnvError(
                f"OneHotAction takes a vector of shape {self.action_space.shape}, "
                f"got shape {np.shape(action)}."
            )
        return self.env.step(int(np.argmax(action)) + self._start)


class SelectAction(Layer):
    """One entry of a Dict action; the others stay at a fixed value (default: zeros)."""

    def __init__(
        self, env: gymnasium.Env[Any, Any], key: str, fixed: dict[str, Any] | None = None
    ) -> None:
        super().__init__(env, key=key, fixed=fixed)
        space = env.action_space
        if not isinstance(space, spaces.Dict):
            raise EnvError(f"SelectAction needs a Dict of actions, not {space}.")
        for name in (key, *(fixed or {})):
            if name not in space.spaces:
                raise EnvError(
                    f"There is no action {name!r}.{did_you_mean(name, space.spaces)} "
                    f"Actions: {', '.join(space.spaces)}."
                )
        self._key = key
        self._fixed = {name: _zero(part) for name, part in space.spaces.items()} | (fixed or {})
        self.action_space = space.spaces[key]

    def step(self, action: Any) -> Any:
        return self.env.step({**self._fixed, self._key: action})


class ActionRepeat(Layer):
    """Each action `amount` times: rewards are summed, an episode's end breaks off."""

    def __init__(self, env: gymnasium.Env[Any, Any], amount: int) -> None:
        super().__init__(env, amount=amount)
        if amount < 1:
            raise EnvError(f"ActionRepeat needs amount >= 1, got {amount}.")
        self._amount = amount

    def step(self, action: Any) -> Any:
        total = 0.0
        for _ in range(self._amount):
            obs, reward, terminated, truncated, info = stepped(self.env, action)
            total += as_reward(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info


def _zero(space: spaces.Space[Any]) -> Any:
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    if isinstance(space, spaces.Discrete):
        return int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start.copy()
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape, space.dtype)
    raise EnvError(f"SelectAction has no resting value for {space}: give it in `fixed`.")

"""The contract as wrappers: Dict observations, actions in [-1, 1] or int64 indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs.boundary.actions import canonical_action, labels_of
from worldflux_envs.boundary.faults import EnvFault
from worldflux_envs.boundary.finite import as_reward
from worldflux_envs.boundary.observations import canonical_observation, refuse_heads
from worldflux_envs.boundary.protocol import started, stepped
from worldflux_envs.wrappers.layer import Layer


class Contract(Layer):
    """Any Gymnasium environment with canonical observations, actions and reward type.

    What every step gives is checked against the environment's own spaces: an `EnvFault` names the
    environment, the step, the key, what was expected and what came. `rename` gives observations
    other keys. An environment with `canonical = True` has the contract's actions already, and makes
    new arrays at every step.
    """

    state_attributes = ("_step",)

    def __init__(
        self, env: gymnasium.Env[Any, Any], *, rename: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(env, rename=rename)
        canonical = bool(getattr(env.unwrapped, "canonical", False))
        self._name = env.spec.id if env.spec else type(env.unwrapped).__name__
        self._step = 0
        self.observation_space, self._observation = canonical_observation(
            env.observation_space, rename=rename, fresh=canonical
        )
        self._action: Any = None
        if not canonical:
            labels = labels_of(env.unwrapped, env.action_space)
            self.action_space, self._action = canonical_action(env.action_space, labels)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._step = 0
        try:
            obs, info = started(self.env, **kwargs)
            return self._observation(obs), info
        except EnvFault as fault:
            raise EnvFault(f"{self._name}, at the reset: {fault}.") from fault

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        told = action if self._action is None else self._action(action)
        try:
            obs, reward, terminated, truncated, info = stepped(self.env, told)
            return self._observation(obs), as_reward(reward), terminated, truncated, info
        except EnvFault as fault:
            raise EnvFault(f"{self._name}, step {self._step}: {fault}.") from fault


class ObsDict(Layer):
    """One observation as a Dict under `key`, of any kind the contract knows."""

    def __init__(self, env: gymnasium.Env[Any, Any], key: str = "state") -> None:
        super().__init__(env, key=key)
        if isinstance(env.observation_space, spaces.Dict | spaces.Tuple):
            raise EnvError(f"ObsDict names one observation; this has {env.observation_space}.")
        refuse_heads([key], "`key`")
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

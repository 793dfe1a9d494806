"""Any `dm_env.Environment` as a Gymnasium one: bsuite and whatever else speaks the interface.

Environments of dm_control go through `worldflux_envs.dm`, which can render and resume them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux.errors import EnvError


class AnyDmEnv(gymnasium.Env[Any, Any]):
    """`environment` with its observations by key (`state` where it has one without a name).

    An episode that ends with discount 0 is terminated, one that ends otherwise is truncated. The
    interface knows no seeds: `reset(seed=...)` replaces the generator that environments of
    DeepMind's libraries draw from (`_rng`), where there is one.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's form

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self.render_mode = None
        specs = environment.observation_spec()
        named = isinstance(specs, Mapping)
        self._specs = dict(specs) if named else {"state": specs}
        self._named = named
        self._spaces = {key: _space(spec) for key, spec in self._specs.items()}
        self.observation_space = spaces.Dict(self._spaces)
        self.action_space = _space(environment.action_spec(), action=True)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            _seed(self._environment, seed)
        return self._observed(self._environment.reset().observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if isinstance(self.action_space, spaces.Discrete):
            action = int(action)
        step = self._environment.step(action)
        over = bool(step.last())
        terminated = over and step.discount == 0
        reward = float(np.sum(step.reward)) if step.reward is not None else 0.0
        return self._observed(step.observation), reward, terminated, over and not terminated, {}

    def close(self) -> None:
        self._environment.close()

    def _observed(self, observation: Any) -> dict[str, Any]:
        found = observation if self._named else {"state": observation}
        return {
            key: np.asarray(found[key], space.dtype).reshape(space.shape)
            for key, space in self._spaces.items()
        }


def as_gymnasium(environment: Any) -> gymnasium.Env[Any, Any]:
    """A dm_env environment as a Gymnasium one: `DmEnv` for those with physics."""
    if hasattr(environment, "physics"):
        from worldflux_envs.dm import DmEnv

        return DmEnv(environment)
    return AnyDmEnv(environment)


def _space(spec: Any, action: bool = False) -> spaces.Space[Any]:
    """The space of a dm_env spec; a whole-numbered action is a choice."""
    if action and hasattr(spec, "num_values"):
        return spaces.Discrete(int(spec.num_values))
    if not hasattr(spec, "shape"):
        raise EnvError(f"{spec} is no spec of one array: name its parts by a mapping.")
    dtype = np.dtype(spec.dtype)
    if dtype == np.uint8 and len(spec.shape) == 3:  # pictures
        return spaces.Box(0, 255, spec.shape, np.uint8)
    low, high = getattr(spec, "minimum", -np.inf), getattr(spec, "maximum", np.inf)
    shape = spec.shape or (1,)
    low, high = (np.broadcast_to(np.asarray(x, np.float32), shape) for x in (low, high))
    return spaces.Box(low, high, shape, np.float32)


def _seed(environment: Any, seed: int) -> None:
    """Seed the generators of an environment and of what it wraps."""
    layer, seen = environment, 0
    while layer is not None and seen < 10:
        if isinstance(getattr(layer, "_rng", None), np.random.RandomState):
            layer._rng = np.random.RandomState(seed)
        layer = getattr(layer, "_env", None) or getattr(layer, "raw_env", None)
        seen += 1

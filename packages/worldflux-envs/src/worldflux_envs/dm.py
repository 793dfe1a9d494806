"""A dm_env environment (DeepMind Control and whatever speaks its interface) as a Gymnasium one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux_envs.simulation import get_simulation, plain_rendering, set_simulation


class DmEnv(gymnasium.Env[Any, Any]):
    """`environment` of dm_control: its observations concatenated or by key, rendered by `camera`.

    An episode that ends with discount 0 is terminated, one that ends otherwise is truncated.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 - Gymnasium's form

    def __init__(
        self,
        environment: Any,
        *,
        by_key: bool = False,
        camera: int | str = 0,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (240, 320),
        effects: bool = True,
    ) -> None:
        self._environment, self._by_key = environment, by_key
        self.render_mode, self._camera, self._render_size = render_mode, camera, render_size
        self._effects = effects
        self.metadata = {**self.metadata, "render_fps": round(1 / environment.control_timestep())}
        self.action_space = _box(environment.action_spec(), np.float64)
        parts = {k: _box(v, np.float32) for k, v in environment.observation_spec().items()}
        self.observation_space: spaces.Space[Any] = spaces.Dict(parts)
        if not by_key:
            size = sum(int(np.prod(part.shape)) for part in parts.values())
            self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)

    @property
    def physics(self) -> Any:
        """The simulation."""
        return self._environment.physics

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            # The suite draws its initial states from here.
            self._environment.task._random = np.random.RandomState(seed)
        step = self._environment.reset()
        if not self._effects:
            plain_rendering(self.physics.model.ptr)
        return self._observed(step.observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        step = self._environment.step(action)
        terminated = bool(step.last() and step.discount == 0)
        obs, reward = self._observed(step.observation), float(step.reward or 0.0)
        return obs, reward, terminated, bool(step.last()) and not terminated, {}

    def render(self) -> Any:
        rows, columns = self._render_size
        return self.physics.render(rows, columns, camera_id=self._camera)

    def close(self) -> None:
        self._environment.close()

    def get_state(self) -> dict[str, Any]:
        """The simulation, the task's generator and the time passed."""
        _, key, position, has_gauss, gauss = self._environment.task.random.get_state()
        return {
            "simulation": get_simulation(self.physics.model.ptr, self.physics.data.ptr),
            "random": (key, position, has_gauss, gauss),
            "steps": self._environment._step_count,
            "over": self._environment._reset_next_step,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` gave, after a reset with the episode's seed."""
        set_simulation(self.physics.model.ptr, self.physics.data.ptr, state["simulation"])
        self._environment.task.random.set_state(("MT19937", *state["random"]))
        self._environment._step_count = state["steps"]
        self._environment._reset_next_step = state["over"]

    def _observed(self, observation: dict[str, Any]) -> Any:
        if self._by_key:
            return {k: np.atleast_1d(np.asarray(v, np.float32)) for k, v in observation.items()}
        return np.concatenate([np.ravel(v) for v in observation.values()], dtype=np.float32)


def _box(spec: Any, dtype: Any) -> spaces.Box:
    shape = spec.shape or (1,)
    low = np.broadcast_to(getattr(spec, "minimum", -np.inf), shape).astype(dtype)
    high = np.broadcast_to(getattr(spec, "maximum", np.inf), shape).astype(dtype)
    return spaces.Box(low, high, shape, dtype)

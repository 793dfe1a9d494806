"""A dm_env environment (DeepMind Control and whatever speaks its interface) as a Gymnasium one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux_envs.boundary.actions import canonical_action
from worldflux_envs.gl_thread import drawing, freed_by_drawing
from worldflux_envs.simulation import get_simulation, plain_rendering, set_simulation


class DmEnv(gymnasium.Env[Any, Any]):
    """`environment` of dm_control: its observations concatenated or by key, rendered by `camera`.

    An episode that ends with discount 0 is terminated, one that ends otherwise is truncated.
    """

    canonical = True  # actions in [-1, 1], new arrays at every step (see `Contract`)
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
        self._view: Any = None
        self._freed: Callable[[], Any] | None = None
        self.metadata = {**self.metadata, "render_fps": round(1 / environment.control_timestep())}
        actions = _box(environment.action_spec(), np.float64)
        self.action_space, self._action = canonical_action(actions)
        specs = environment.observation_spec()
        parts: dict[str, spaces.Space[Any]]
        parts = {key: _box(spec, np.float32) for key, spec in specs.items()}
        self._vector, self._views = _vector_of(specs)
        if not by_key:
            parts = {"state": spaces.Box(-np.inf, np.inf, self._vector.shape, np.float32)}
        self.observation_space = spaces.Dict(parts)

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
        # A task may free what it drew with, and build another simulation.
        begin = self._environment.reset
        step = begin() if self._freed is None else drawing(begin)
        self._view = None  # a task may build another simulation for its next episode
        if not self._effects:
            plain_rendering(self.physics.model.ptr)
        return self._observed(step.observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        step = self._environment.step(self._action(action))
        over = bool(step.last())
        terminated = bool(over and step.discount == 0)
        obs, reward = self._observed(step.observation), float(step.reward or 0.0)
        return obs, reward, terminated, over and not terminated, {}

    def render(self) -> Any:
        return drawing(self._render)

    def _render(self) -> Any:
        if self._view is None:
            from dm_control.mujoco import Camera

            # `physics.render` makes one for every picture, which costs more than to draw it.
            self._view = Camera(self.physics, *self._render_size, camera_id=self._camera)
        found = self._view.render().copy()
        if self._freed is None:
            self._freed = freed_by_drawing(self, _free, self._environment)
        return found

    def close(self) -> None:
        self._view = None
        if self._freed is None:
            self._environment.close()
        else:
            self._freed()

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

    def _observed(self, observation: dict[str, Any]) -> dict[str, np.ndarray]:
        if self._by_key:
            return {k: np.array(v, np.float32).reshape(-1) for k, v in observation.items()}
        for key, view in self._views.items():
            view[...] = observation[key]
        return {"state": self._vector.copy()}


def _free(environment: Any) -> None:
    """Close an environment that was drawn, and free what it was drawn with."""
    environment.close()
    environment.physics.free()


def _vector_of(specs: dict[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A vector and each observation's view of it: half the cost of concatenating them."""
    ends = np.cumsum([int(np.prod(spec.shape)) for spec in specs.values()]).tolist()
    vector = np.zeros(ends[-1], np.float32)
    places = zip(specs.items(), pairwise([0, *ends]), strict=True)
    return vector, {k: vector[a:b].reshape(spec.shape) for (k, spec), (a, b) in places}


def _box(spec: Any, dtype: Any) -> spaces.Box:
    shape = (int(np.prod(spec.shape)),)
    bounds = (getattr(spec, "minimum", -np.inf), getattr(spec, "maximum", np.inf))
    low, high = (np.broadcast_to(b, spec.shape).reshape(shape).astype(dtype) for b in bounds)
    return spaces.Box(low, high, shape, dtype)

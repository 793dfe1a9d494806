"""An MJCF or MJB file, or MJCF text, as an environment."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from worldflux.errors import EnvError, did_you_mean
from worldflux_envs.gl_thread import drawing, freed_by_drawing
from worldflux_envs.simulation import get_simulation, plain_rendering, set_simulation

# (model, data) -> value
Reward = Callable[[Any, Any], float]
Terminal = Callable[[Any, Any], bool]


class MjcfEnv(gymnasium.Env[Any, Any]):
    """Positions and velocities as observations, the actuators' controls as actions.

    `reward_fn(model, data)` (default 0) and `terminal_fn(model, data)` (default never) are asked
    after every step; both may be named, as "module:function". `reset_noise` is the half-width of
    uniform noise on qpos and qvel at a reset, `control_range` the bounds of actuators that declare
    none.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 - Gymnasium's form

    def __init__(
        self,
        model: str | Path | Any,
        *,
        assets: dict[str, bytes] | None = None,
        camera: int | str = -1,
        frame_skip: int = 1,
        reward_fn: Reward | str | None = None,
        terminal_fn: Terminal | str | None = None,
        reset_noise: float = 0.0,
        control_range: tuple[float, float] = (-1.0, 1.0),
        render_mode: str | None = None,
        render_size: tuple[int, int] = (240, 320),
        effects: bool = True,
    ) -> None:
        if frame_skip < 1:
            raise EnvError(f"frame_skip must be at least 1, got {frame_skip}.")
        self.model = load(model, assets)
        self.data = mujoco.MjData(self.model)
        self._frame_skip, self._reset_noise = frame_skip, reset_noise
        self._reward_fn = _function("reward_fn", reward_fn)
        self._terminal_fn = _function("terminal_fn", terminal_fn)
        self.render_mode, self._render_size = render_mode, render_size
        self._renderer: Any = None
        self._camera = _camera(self.model, camera)
        if not effects:
            plain_rendering(self.model)
        seconds = self.model.opt.timestep * frame_skip
        self.metadata = {**self.metadata, "render_fps": max(1, round(1 / seconds))}
        size = self.model.nq + self.model.nv
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = spaces.Box(*_controls(self.model, control_range), dtype=np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        if self.model.nkey:
            mujoco.mj_resetDataKeyframe(self.model, self.data, 0)
        if self._reset_noise:
            noise, half = self.np_random, self._reset_noise
            dq = noise.uniform(-half, half, self.model.nv)
            mujoco.mj_integratePos(self.model, self.data.qpos, dq, 1.0)  # unit quaternions stay so
            self.data.qvel += noise.uniform(-half, half, self.model.nv)
        mujoco.mj_forward(self.model, self.data)
        return self._observed(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data, self._frame_skip)
        # Positions of bodies and sites for the functions below belong to the new state.
        mujoco.mj_kinematics(self.model, self.data)
        reward = self._reward_fn(self.model, self.data) if self._reward_fn else 0.0
        terminal = self._terminal_fn(self.model, self.data) if self._terminal_fn else False
        return self._observed(), float(reward), bool(terminal), False, {}

    def render(self) -> Any:
        return drawing(self._render)

    def _render(self) -> Any:
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self.model, *self._render_size)
            self._freed = freed_by_drawing(self, self._renderer.close)
        self._renderer.update_scene(self.data, camera=self._camera)
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._freed()
            self._renderer = None

    def get_state(self) -> dict[str, Any]:
        """The simulation."""
        return {"simulation": get_simulation(self.model, self.data)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` gave."""
        set_simulation(self.model, self.data, state["simulation"])

    def _observed(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel], dtype=np.float32)


def _function(option: str, named: Any) -> Callable[[Any, Any], Any] | None:
    """The function itself, imported where it is named."""
    if named is None or callable(named):
        return cast("Callable[[Any, Any], Any] | None", named)
    try:
        found = pkgutil.resolve_name(str(named))
    except (ImportError, AttributeError, ValueError) as error:
        raise EnvError(
            f"env.{option}={named!r} cannot be imported ({error}): write module:function, of a "
            "module that can be imported here."
        ) from error
    if not callable(found):
        raise EnvError(f"env.{option}={named!r} is a {type(found).__name__}, not a function.")
    return cast("Callable[[Any, Any], Any]", found)


def load(model: Any, assets: dict[str, bytes] | None = None) -> Any:
    """An `MjModel` from a path to MJCF or MJB, MJCF text, or an `MjModel`."""
    if isinstance(model, mujoco.MjModel):
        return model
    try:
        if isinstance(model, str) and model.lstrip().startswith("<"):
            return mujoco.MjModel.from_xml_string(model, assets)
        path = Path(model).expanduser()
        if not path.is_file():
            raise EnvError(f"There is no MuJoCo model {path}: give a .xml or .mjb file, or MJCF.")
        if path.suffix == ".mjb":
            return mujoco.MjModel.from_binary_path(str(path), assets)
        return mujoco.MjModel.from_xml_path(str(path), assets)
    except ValueError as error:
        raise EnvError(f"MuJoCo cannot read this model: {error}") from error


def _controls(model: Any, default: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    limited = model.actuator_ctrllimited.astype(bool)[:, None]
    bounds = np.where(limited, model.actuator_ctrlrange, np.array(default, float))
    return bounds[:, 0], bounds[:, 1]


def _camera(model: Any, camera: int | str) -> int | str:
    names = [model.camera(i).name for i in range(model.ncam)]
    if isinstance(camera, str) and camera not in names:
        raise EnvError(f"The model has no camera {camera!r}.{did_you_mean(camera, names)} "
                       f"Cameras: {', '.join(names) or 'none'}.")  # fmt: skip
    if isinstance(camera, int) and not -1 <= camera < model.ncam:
        raise EnvError(f"The model has {model.ncam} cameras; camera {camera} is none (-1 is free).")
    return camera

"""Backend `mujoco`: an MJCF or MJB model as an environment, and Gymnasium's MuJoCo tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `mujoco` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="mujoco",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            runs_code="worldflux_envs.options:reads_only",
            tasks=f"{__name__}:tasks",
            description="an MJCF/MJB file or XML text as an environment; Gymnasium's MuJoCo tasks",
            aliases=("mjcf", "native-mujoco"),
            requires=("mujoco",),
            install='pip install "worldflux-envs[mujoco]"',
            vector=VECTOR,
            options={
                "assets": "file name -> bytes that the XML text refers to",
                "camera": "number or name of the camera; -1 is the free one",
                "frame_skip": "simulation steps per action",
                "reward_fn": "(model, data) -> reward, or its module:function; default 0",
                "terminal_fn": "(model, data) -> whether the episode ends, or its module:function",
                "reset_noise": "half-width of uniform noise on positions and velocities",
                "control_range": "bounds of actuators that declare none; default (-1, 1)",
                "effects": "False: no shadows, reflections, multisampling",
                **CONTRACT,
            },
        )
    ]


def make(task: Any, **options: Any) -> gymnasium.Env[Any, Any]:
    """`mujoco/path/to/model.xml`, XML text, an `MjModel`, or a task such as `HalfCheetah-v5`."""
    from worldflux_envs.headless import choose_gl
    from worldflux_envs.options import split
    from worldflux_envs.stack import check_obs, contract_env
    from worldflux_envs.wrappers.pixels import as_size

    pixels = check_obs(options.get("obs", "state")) != "state"
    known = isinstance(task, str) and task in tasks()
    # Gymnasium's tasks find their own way to render even after mujoco was imported.
    choose_gl(rendering=not known and (pixels or bool(options.get("render_mode"))))
    contract, rest = split(options)
    if pixels:  # straight at the size of the observation
        rows, columns = as_size(contract.get("size") or 64)
        drawn = {"height": rows, "width": columns} if known else {"render_size": (rows, columns)}
        rest = {"render_mode": "rgb_array", **drawn, **rest}
    if known:
        return _task(task, **contract, **rest)
    from worldflux_envs.mjcf import MjcfEnv

    return contract_env(MjcfEnv(task, **rest), **contract)


def make_vec(task: Any, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` of them; see `worldflux_envs.vector.make_vec`."""
    from worldflux_envs.vector import make_vec as vectorise

    return vectorise(make, task, num_envs, name="mujoco", **options)


def tasks() -> list[str]:
    """Gymnasium's MuJoCo tasks that run on today's bindings."""
    import gymnasium

    return sorted(
        spec.id
        for spec in gymnasium.registry.values()
        if str(spec.entry_point).startswith("gymnasium.envs.mujoco.") and (spec.version or 0) >= 4
    )


def _task(task: str, *, effects: bool = True, **options: Any) -> gymnasium.Env[Any, Any]:
    """One of Gymnasium's tasks."""
    from worldflux_envs.backends import gym
    from worldflux_envs.simulation import plain_rendering

    env = gym.make(task, **options)
    if not effects:
        plain_rendering(env.unwrapped.model)  # type: ignore[attr-defined]
    return env

"""Backend `robotics`: Gymnasium-Robotics, goal-conditioned tasks."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `robotics` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="robotics",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            tasks=f"{__name__}:tasks",
            description="Gymnasium-Robotics: 'state', 'achieved_goal' and 'goal' observations",
            aliases=("gymnasium-robotics",),
            requires=("gymnasium_robotics",),
            install='pip install "worldflux-envs[robotics]"',
            vector=VECTOR,
            options={"...": "anything else goes to the environment's constructor", **CONTRACT},
        )
    ]


def make(task: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """A task of Gymnasium-Robotics, such as `PointMaze_UMaze-v3`."""
    from worldflux.errors import EnvError, did_you_mean
    from worldflux_envs.backends import gym

    names = tasks()
    if task not in names:
        raise EnvError(
            f"Gymnasium-Robotics has no task {task!r}.{did_you_mean(task, names)} "
            "worldflux.list_envs('robotics') lists them."
        )
    _name_joints_by_number()
    try:
        return gym.make(task, **options)
    except (AssertionError, AttributeError) as error:
        import mujoco

        raise EnvError(
            f"robotics/{task} does not work with the installed mujoco {mujoco.__version__} "
            f"({error or type(error).__name__})."
        ) from error


class _Mujoco:
    """The package mujoco, whose kinds of joints are numbers."""

    def __init__(self) -> None:
        import mujoco

        kinds = {name: int(kind) for name, kind in mujoco.mjtJoint.__members__.items()}
        self.mjtJoint = SimpleNamespace(**kinds)

    def __getattr__(self, name: str) -> Any:
        import mujoco

        return getattr(mujoco, name)


def _name_joints_by_number() -> None:
    """Let the package's own comparisons hold with mujoco 3.11 and later.

    A model holds its kinds of joints as numpy integers, which since then equal no member of
    `mjtJoint`: Fetch, Hand and Kitchen stop at an assertion. As numbers they compare as before.
    """
    from gymnasium_robotics.utils import mujoco_utils

    if not isinstance(mujoco_utils.mujoco, _Mujoco):
        mujoco_utils.mujoco = _Mujoco()


def make_vec(task: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` of them; see `worldflux_envs.vector.make_vec`."""
    from worldflux_envs.vector import make_vec as vectorise

    return vectorise(make, task, num_envs, name="robotics", **options)


def tasks() -> list[str]:
    """The ids Gymnasium-Robotics registers, those of the retired mujoco-py bindings left out."""
    from worldflux_envs.headless import choose_gl

    choose_gl(rendering=False)  # importing the package imports mujoco
    import gymnasium
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    return sorted(
        spec.id
        for spec in gymnasium.registry.values()
        if str(spec.entry_point).startswith("gymnasium_robotics.")
        and "MujocoPy" not in str(spec.entry_point)
    )

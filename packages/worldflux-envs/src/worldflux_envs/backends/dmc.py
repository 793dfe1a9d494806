"""Backend `dmc`: the DeepMind Control suite and custom dm_control environments."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.errors import EnvError, did_you_mean
from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")
# Where the suite's first camera does not follow the body (as in published pixel benchmarks).
CAMERAS = {"quadruped": 2}
_DRAWS = "dm_control._render"
SHORT_NAMES = {"cup": "ball_in_cup", "pointmass": "point_mass"}


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `dmc` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="dmc",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            tasks=f"{__name__}:tasks",
            description="DeepMind Control suite and custom domains, state and pixels",
            aliases=("dm-control",),
            requires=("dm_control",),
            install='pip install "worldflux-envs[dmc]"',
            vector=VECTOR,
            options={
                "by_key": "observations by their own keys instead of one vector 'state'",
                "camera": "number or name of the camera",
                "effects": "False: no shadows, reflections, multisampling (far faster in software)",
                "task_kwargs": "arguments of the suite's task",
                **CONTRACT,
            },
        )
    ]


def make(
    task: Any,
    *,
    by_key: bool = False,
    camera: int | str | None = None,
    effects: bool = True,
    render_mode: str | None = None,
    task_kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> gymnasium.Env[Any, Any]:
    """`domain-task`, `module:function` giving a dm_control environment, or such an environment."""
    from worldflux_envs.headless import choose_gl
    from worldflux_envs.options import known
    from worldflux_envs.stack import check_obs, contract_env

    known("dmc", options)
    if check_obs(options.get("obs", "state")) != "state" or render_mode:
        render_mode = "rgb_array"
    choose_gl(rendering=render_mode is not None, read_by=_DRAWS)
    domain, environment = _load(task, task_kwargs or {})
    from worldflux_envs.dm import DmEnv

    size = options.get("size") or 64
    env = DmEnv(
        environment,
        by_key=by_key,
        camera=CAMERAS.get(domain, 0) if camera is None else camera,
        render_mode=render_mode,
        # Straight at the size of the observation; videos get a larger picture.
        render_size=_rendered(size) if options.get("obs", "state") != "state" else (240, 320),
        effects=effects,
    )
    return contract_env(env, **options)


def make_vec(task: Any, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` of them; see `worldflux_envs.vector.make_vec`."""
    from worldflux_envs.vector import make_vec as vectorise

    return vectorise(make, task, num_envs, name="dmc", **options)


def tasks() -> list[str]:
    """Every `domain-task` of the suite."""
    from worldflux_envs.headless import choose_gl

    choose_gl(rendering=False, read_by=_DRAWS)  # importing the suite imports what draws
    from dm_control import suite

    return sorted(f"{domain}-{task}" for domain, task in suite.ALL_TASKS)


def _load(task: Any, task_kwargs: dict[str, Any]) -> tuple[str, Any]:
    if not isinstance(task, str):
        return "", task() if callable(task) else task
    if ":" in task:
        module, _, function = task.partition(":")
        return "", getattr(importlib.import_module(module), function)(**task_kwargs)
    from dm_control import suite

    domain, _, rest = task.replace("_", "-").partition("-")
    wanted = f"{SHORT_NAMES.get(domain, domain)}-{rest}".replace("_", "-")
    names = {f"{d}-{t}".replace("_", "-"): (d, t) for d, t in suite.ALL_TASKS}
    if wanted not in names:
        raise EnvError(
            f"The suite has no task {task!r}.{did_you_mean(wanted, names)} "
            "worldflux.list_envs('dmc') lists them; 'module:function' names one of your own."
        )
    domain, name = names[wanted]
    # Some models are drawn at random when loaded: every copy shall be the same.
    return domain, suite.load(domain, name, task_kwargs={"random": 0, **task_kwargs})


def _rendered(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)

"""Backend `crafter`: the open world survival game in two dimensions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")
TASKS = {"reward": True, "noreward": False}


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `crafter` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="crafter",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            tasks=f"{__name__}:tasks",
            description="Crafter: survive, gather, craft; 22 achievements in info['achievements']",
            requires=("crafter",),
            install='pip install "worldflux-envs[crafter]"',
            vector=VECTOR,
            options={k: v for k, v in CONTRACT.items() if k != "obs"},
        )
    ]


def make(
    task: str, *, size: Any = 64, max_episode_steps: int | None = None, **options: Any
) -> gymnasium.Env[Any, Any]:
    """`reward` (with the achievements' rewards) or `noreward`."""
    from worldflux.errors import EnvError, did_you_mean
    from worldflux_envs.options import known
    from worldflux_envs.stack import contract_env
    from worldflux_envs.survival import CrafterEnv
    from worldflux_envs.wrappers.pixels import as_size

    if task not in TASKS:
        raise EnvError(
            f"Crafter has no task {task!r}.{did_you_mean(task, TASKS)} Tasks: {', '.join(TASKS)}."
        )
    render_mode = options.pop("render_mode", None)
    known("crafter", options)
    length = (max_episode_steps or 10_000) * options.get("action_repeat", 1)
    env = CrafterEnv(size=as_size(size), reward=TASKS[task], length=length, render_mode=render_mode)
    return contract_env(env, **options)


def make_vec(task: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` of them; see `worldflux_envs.vector.make_vec`."""
    from worldflux_envs.vector import make_vec as vectorise

    return vectorise(make, task, num_envs, name="crafter", **options)


def tasks() -> list[str]:
    """With and without reward."""
    return list(TASKS)

"""Backend `craftax`: Crafter and its larger successor on JAX."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")
TASKS = ("Craftax", "Craftax-Classic")


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `craftax` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="craftax",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            tasks=f"{__name__}:tasks",
            description="Craftax and Craftax-Classic, compiled by JAX; pixels or symbols",
            requires=("craftax",),
            install='pip install "worldflux-envs[craftax]"',
            vector=VECTOR,
            options={**CONTRACT, "obs": "'pixels' (default) or 'state' (the symbolic vector)"},
        )
    ]


def make(
    task: str, *, obs: str = "pixels", max_episode_steps: int | None = None, **options: Any
) -> gymnasium.Env[Any, Any]:
    """`Craftax` or `Craftax-Classic`; compiling takes about a minute the first time."""
    from worldflux.errors import EnvError, did_you_mean
    from worldflux_envs.craftax_game import CraftaxEnv
    from worldflux_envs.options import known
    from worldflux_envs.stack import check_obs, contract_env

    if task not in TASKS:
        raise EnvError(
            f"Craftax has no task {task!r}.{did_you_mean(task, TASKS)} Tasks: {', '.join(TASKS)}."
        )
    if check_obs(obs) == "both":
        raise EnvError("craftax gives obs='pixels' or obs='state', not both.")
    render_mode = options.pop("render_mode", None)
    known("craftax", options)
    kind = "Pixels" if obs == "pixels" or render_mode else "Symbolic"
    length = (max_episode_steps or 10_000) * options.get("action_repeat", 1)
    env = CraftaxEnv(f"{task}-{kind}-v1", length=length, render_mode=render_mode)
    return contract_env(env, **options)


def make_vec(task: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` of them; see `worldflux_envs.vector.make_vec`."""
    from worldflux_envs.vector import make_vec as vectorise

    return vectorise(make, task, num_envs, name="craftax", **options)


def tasks() -> list[str]:
    """The two games."""
    return list(TASKS)

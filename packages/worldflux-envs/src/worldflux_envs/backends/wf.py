"""Backend `wf`: our own small environments, batched in torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

# These the batch does itself; others need wrappers around single environments.
_BATCHED = {"obs", "size", "render_mode", "seed", "mode", "copy", "workers", "timeout"}
hookimpl = pluggy.HookimplMarker("worldflux")


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `wf` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="wf",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            tasks=f"{__name__}:tasks",
            description="catch, cartpole, pendulum, two-room, sprites: small, exact, with oracles",
            requires=("gymnasium", "torch"),
            install="pip install worldflux-envs",
            vector=VECTOR,
            options=CONTRACT,
        )
    ]


def make(
    task: str,
    *,
    obs: str = "state",
    size: int | None = None,
    render_mode: str | None = None,
    **options: Any,
) -> gymnasium.Env[Any, Any]:
    """One environment."""
    from worldflux_envs.options import known
    from worldflux_envs.stack import check_obs, contract_env, used_size
    from worldflux_envs.wf.env import WfEnv

    known("wf", options)
    size = used_size(size, check_obs(obs), 64)
    env = WfEnv(task, obs=obs, size=size, render_mode=render_mode)
    return contract_env(env, **options)


def make_vec(task: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` rows of one batch; options that need wrappers step them one by one instead."""
    from worldflux_envs.vector import make_vec as vectorise

    in_the_way = set(options) - _BATCHED
    native = None if in_the_way else _native
    return vectorise(
        make, task, num_envs, name="wf", native=native, not_native=in_the_way, **options
    )


def tasks() -> list[str]:
    """The games' names; asking for them imports no torch."""
    return ["catch", "cartpole", "pendulum", "two-room", "sprites"]


def _native(
    task: str, num_envs: int, *, obs: str = "state", size: int | None = None, **options: Any
) -> VectorEnv[Any, Any, Any]:
    from worldflux_envs.stack import check_obs, used_size
    from worldflux_envs.wf.env import WfVec

    size = used_size(size, check_obs(obs), 64)
    return WfVec(task, num_envs, obs=obs, size=size, **options)

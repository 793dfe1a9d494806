"""Backend `brax`: rigid bodies on JAX, compiled and batched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")
# These the batch does itself; others need wrappers around single environments.
_BATCHED = {"obs", "size", "camera", "physics", "max_episode_steps", "render_mode"}
_VECTOR = {"seed", "mode", "copy", "workers", "timeout"}


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `brax` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="brax",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            tasks=f"{__name__}:tasks",
            description="Brax on JAX: compiled, natively batched; states or rendered images",
            aliases=("jax-brax", "jax_brax"),
            requires=("brax",),
            install='pip install "worldflux-envs[brax]"',
            vector=VECTOR,
            options={
                **CONTRACT,
                "max_episode_steps": "truncate episodes after so many of the agent's steps (1000)",
                "physics": "'generalized', 'spring', 'positional' or 'mjx'; default the task's own",
                "camera": "name or number of the camera to render with; default the free one",
            },
        )
    ]


def make(
    task: Any,
    *,
    obs: str = "state",
    size: Any = None,
    physics: str | None = None,
    camera: str | int = -1,
    max_episode_steps: int = 1000,
    render_mode: str | None = None,
    **options: Any,
) -> gymnasium.Env[Any, Any]:
    """The task `ant` (or a `brax.envs.Env`); compiling takes up to a minute the first time."""
    from worldflux_envs.options import known
    from worldflux_envs.stack import contract_env, used_size

    known("brax", options)
    size = used_size(size, "pixels" if render_mode else obs, 64)
    env = _rooms(obs, render_mode).BraxEnv(
        task, obs=obs, size=size, physics=physics, camera=camera, render_mode=render_mode,
        max_episode_steps=max_episode_steps * options.get("action_repeat", 1),
    )  # fmt: skip
    return contract_env(env, **options)


def make_vec(task: Any, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` rows of one batch; options that need wrappers step them one by one instead."""
    from worldflux_envs.vector import make_vec as vectorise

    in_the_way = set(options) - _BATCHED - _VECTOR
    # A trial would compile for as long as the environment itself.
    return vectorise(
        make, task, num_envs, name="brax", native=None if in_the_way else _native, trial=0,
        not_native=in_the_way, **options,
    )  # fmt: skip


def tasks() -> list[str]:
    """The environments Brax has registered."""
    # `fast` is its test dummy.
    return sorted(set(_rooms("state", None).REGISTRY) - {"fast"})


def _native(task: Any, num_envs: int, **options: Any) -> VectorEnv[Any, Any, Any]:
    from worldflux_envs.stack import used_size

    obs, render_mode = options.get("obs", "state"), options.get("render_mode")
    rooms = _rooms(obs, render_mode)
    options["size"] = used_size(options.get("size"), "pixels" if render_mode else obs, 64)
    return rooms.BraxVec(task, num_envs, **options)


def _rooms(obs: str, render_mode: str | None) -> Any:
    """`worldflux_envs.brax_rows`, with a way to render chosen before Brax imports mujoco."""
    from worldflux_envs.headless import choose_gl
    from worldflux_envs.stack import check_obs

    choose_gl(rendering=check_obs(obs) != "state" or render_mode is not None)
    import worldflux_envs.brax_rows as rooms

    return rooms

"""Backend `pusht`: push a T-shaped block onto its mark."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")
KINDS = {"state": "state", "pixels": "pixels", "both": "pixels_agent_pos"}
NAMES = {"pixels": "image", "agent_pos": "state"}


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `pusht` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="pusht",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            tasks=f"{__name__}:tasks",
            description="push a T-shaped block onto its mark",
            aliases=("push-t",),
            requires=("gym_pusht",),
            install='pip install "worldflux-envs[pusht]"',
            vector=VECTOR,
            options={
                **CONTRACT,
                "obs": "'state' (agent and block), 'pixels', or 'both' (pixels and agent)",
            },
        )
    ]


def make(
    task: str, *, obs: str = "state", size: Any = None, **options: Any
) -> gymnasium.Env[Any, Any]:
    """The one task, `PushT-v0`."""
    import gym_pusht
    import gymnasium

    from worldflux.errors import EnvError
    from worldflux_envs.options import split
    from worldflux_envs.stack import check_obs, contract_env, used_size
    from worldflux_envs.wrappers.pixels import as_size

    gymnasium.register_envs(gym_pusht)
    if task not in tasks():
        raise EnvError(f"PushT has no task {task!r}. Tasks: {', '.join(tasks())}.")
    contract, rest = split(options)
    kind = KINDS[check_obs(obs)]
    size = used_size(size, obs, 96)
    if obs != "state":
        rest["observation_height"], rest["observation_width"] = as_size(size)
    raw = gymnasium.make("gym_pusht/PushT-v0", disable_env_checker=True, obs_type=kind, **rest)
    return contract_env(_renamed(raw) if obs == "both" else raw, **contract)


def make_vec(task: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` of them; see `worldflux_envs.vector.make_vec`."""
    from worldflux_envs.vector import make_vec as vectorise

    return vectorise(make, task, num_envs, name="pusht", **options)


def tasks() -> list[str]:
    """The one task."""
    return ["PushT-v0"]


def _renamed(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    from gymnasium.spaces import Dict
    from gymnasium.wrappers import TransformObservation

    parts = env.observation_space.spaces  # type: ignore[attr-defined]
    space = Dict({NAMES[key]: part for key, part in parts.items()})
    return TransformObservation(env, lambda o: {NAMES[k]: v for k, v in o.items()}, space)

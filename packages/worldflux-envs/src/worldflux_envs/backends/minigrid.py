"""Backend `minigrid`: MiniGrid and BabyAI, as pictures or as one-hot grids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")
VIEWS = ("partial", "full")


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `minigrid` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="minigrid",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            tasks=f"{__name__}:tasks",
            description="MiniGrid and BabyAI grid worlds; the mission is in info['mission']",
            requires=("minigrid",),
            install='pip install "worldflux-envs[minigrid]"',
            vector=VECTOR,
            options={
                "view": "'partial' (what the agent sees) or 'full' (the whole grid)",
                "tile": "pixels per cell; default 8",
                **CONTRACT,
                "obs": "'pixels' (default), 'state' (one-hot cells and direction) or 'both'",
            },
        )
    ]


def make(
    task: str, *, view: str = "partial", tile: int = 8, obs: str = "pixels", **options: Any
) -> gymnasium.Env[Any, Any]:
    """A task such as `MiniGrid-DoorKey-8x8-v0`, or `DoorKey-8x8` for short."""
    import gymnasium

    from worldflux.errors import EnvError, did_you_mean
    from worldflux_envs.options import split
    from worldflux_envs.stack import check_obs, contract_env

    check_obs(obs)
    names = tasks()
    wanted = next((n for n in (task, f"MiniGrid-{task}-v0") if n in names), None)
    if wanted is None:
        raise EnvError(f"MiniGrid has no task {task!r}.{did_you_mean(task, names)}")
    if view not in VIEWS:
        raise EnvError(f"view={view!r} is not one of {', '.join(VIEWS)}.")
    from worldflux_envs.grid import GridObservation

    contract, rest = split(options)
    raw = gymnasium.make(wanted, disable_env_checker=True, **rest)
    return contract_env(GridObservation(raw, obs=obs, full=view == "full", tile=tile), **contract)


def make_vec(task: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` of them; see `worldflux_envs.vector.make_vec`."""
    from worldflux_envs.vector import make_vec as vectorise

    return vectorise(make, task, num_envs, name="minigrid", **options)


def tasks() -> list[str]:
    """The ids MiniGrid registers."""
    import gymnasium
    import minigrid

    gymnasium.register_envs(minigrid)
    return sorted(
        spec.id
        for spec in gymnasium.registry.values()
        if str(spec.entry_point).startswith("minigrid.")
    )

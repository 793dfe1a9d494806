"""Backend `bsuite`: the Behaviour Suite for Reinforcement Learning (Osband et al. 2020)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.errors import EnvError, did_you_mean
from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium

hookimpl = pluggy.HookimplMarker("worldflux")


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `bsuite` backend."""
    return [
        EnvSpec(
            backend="bsuite",
            make=f"{__name__}:make",
            tasks=f"{__name__}:tasks",
            description="the Behaviour Suite: 468 settings of 23 experiments, such as catch/0",
            requires=("bsuite", "dm_env"),
            install='pip install "worldflux-envs[bsuite]"',
            options={"...": "none of its own"},
        )
    ]


def make(task: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """The setting `experiment/number`."""
    import bsuite

    from worldflux_envs.dm_any import AnyDmEnv

    left = sorted(set(options) - {"render_mode"})
    if left:
        raise EnvError(f"bsuite/{task} takes no {', '.join(left)}: its settings are in its id.")
    known = tasks()
    if task not in known:
        raise EnvError(
            f"bsuite has no {task!r}.{did_you_mean(task, known)} worldflux envs bsuite lists them."
        )
    with contextlib.redirect_stdout(None):  # it prints what it loads
        return AnyDmEnv(bsuite.load_from_id(task))


def tasks() -> list[str]:
    """Every setting of every experiment."""
    from bsuite import sweep

    return list(sweep.SWEEP)

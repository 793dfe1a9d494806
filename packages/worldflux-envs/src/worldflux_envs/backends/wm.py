"""Backend `wm`: a world model as an environment, `wm/<run folder, saved folder or hub id>`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

    from worldflux.core.model import WorldModel

hookimpl = pluggy.HookimplMarker("worldflux")
AGENT = "agent"  # the folder of the saved agent inside a checkpoint


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `wm` backend."""
    return [
        EnvSpec(
            backend="wm",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            runs_code="worldflux_envs.options:reads_only",
            description="a trained world model as an environment: wm/<run or hub id>",
            aliases=("world-model",),
            requires=("gymnasium", "torch"),
            install="pip install worldflux-envs",
            options={
                "horizon": "steps after which a dream is truncated; default 200",
                "starts": "observations, a folder of episodes or an environment id to start from; "
                "left out, the model imagines its first state",
                "samples": "sampled next states that the uncertainty is measured on; default 4",
            },
            vector={"mode": "'auto' or 'native': dreams are one batch"},
        )
    ]


def make(task: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """One dream of the model in `task`."""
    from worldflux_envs.dream import WorldModelEnv

    seed = options.pop("seed", None)
    env = WorldModelEnv(load(task), **_checked(options, "render_mode"))
    if seed is not None:
        env.reset(seed=seed)
    return env


def make_vec(task: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` dreams of the model in `task`, as one batch."""
    from worldflux.errors import EnvError
    from worldflux_envs.dream import WorldModelVectorEnv

    if (mode := options.pop("mode", "auto")) not in ("auto", "native"):
        raise EnvError(f"Dreams are stepped as one batch: mode={mode!r} is not auto or native.")
    return WorldModelVectorEnv(load(task), num_envs, **_checked(options, "seed"))


def load(task: str) -> WorldModel:
    """The world model of a run (its newest checkpoint), a saved folder or a hub repository."""
    from worldflux import from_pretrained
    from worldflux.core.model import WorldModel
    from worldflux.errors import EnvError
    from worldflux.runs import Run

    source: str | Path = task
    if (Path(task) / "checkpoints").is_dir():
        newest = Run.open(task).latest_checkpoint()
        if newest is None:
            raise EnvError(f"wm/{task}: the run has no intact checkpoint yet.")
        source = newest / AGENT
    saved = from_pretrained(source)
    return saved if isinstance(saved, WorldModel) else saved.world_model


def _checked(options: dict[str, Any], *more: str) -> dict[str, Any]:
    from worldflux.errors import EnvError, did_you_mean

    known = ("horizon", "starts", "samples", *more)
    for name in options:
        if name not in known:
            raise EnvError(
                f"wm takes no option {name!r}.{did_you_mean(name, known)} "
                f"Options: {', '.join(known)}."
            )
    return options

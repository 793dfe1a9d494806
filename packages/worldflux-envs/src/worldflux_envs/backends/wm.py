"""Backend `wm`: a world model as an environment, `wm/<run folder, saved folder or hub id>`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec
from worldflux.trust import Trust

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
                "trust": "modules that the saved model may name: its parts' classes",
            },
            vector={"mode": "'auto' or 'native': dreams are one batch"},
        )
    ]


def make(task: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """One dream of the model in `task`."""
    from worldflux_envs.dream import WorldModelEnv

    seed = options.pop("seed", None)
    options = _checked(options, "render_mode")
    env = WorldModelEnv(load(task, options.pop("trust")), **options)
    if seed is not None:
        env.reset(seed=seed)
    return env


def make_vec(task: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` dreams of the model in `task`, as one batch."""
    from worldflux.errors import EnvError
    from worldflux_envs.dream import WorldModelVectorEnv

    if (mode := options.pop("mode", "auto")) not in ("auto", "native"):
        raise EnvError(f"Dreams are stepped as one batch: mode={mode!r} is not auto or native.")
    options = _checked(options, "seed")
    return WorldModelVectorEnv(load(task, options.pop("trust")), num_envs, **options)


def load(task: str, trust: Trust = ()) -> WorldModel:
    """The world model of a run (its newest checkpoint), a saved folder or a hub repository.

    `trust` holds the modules that it may name, as for `from_pretrained`.
    """
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
    saved = from_pretrained(source, trust=trust)
    return saved if isinstance(saved, WorldModel) else saved.world_model


def _checked(options: dict[str, Any], *more: str) -> dict[str, Any]:
    """`options`, with a `trust` that also holds for an environment that dreams start from."""
    from worldflux.errors import EnvError, did_you_mean

    known = ("horizon", "starts", "samples", "trust", *more)
    for name in options:
        if name not in known:
            raise EnvError(
                f"wm takes no option {name!r}.{did_you_mean(name, known)} "
                f"Options: {', '.join(known)}."
            )
    trust, starts = options.get("trust", ()), options.get("starts")
    return {**options, "trust": trust, "starts": _trusting(starts, trust) if trust else starts}


def _trusting(starts: Any, trust: Trust) -> Any:
    """`starts`, with `trust` among its options where it is an environment that takes it."""
    from worldflux import get_env_spec

    own = starts
    if isinstance(starts, str) and "/" in starts and not Path(starts).is_dir():
        own = {"id": starts}
    if isinstance(own, Mapping) and "id" in own and "trust" in get_env_spec(own["id"]).options:
        return {"trust": trust, **own}
    return starts

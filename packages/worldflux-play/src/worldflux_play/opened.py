"""What is played: a run, a saved model or one of the hub, with its environment and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from worldflux.core.agent import Agent, Learner
from worldflux.core.model import WorldModel
from worldflux.episodes import Episodes
from worldflux.errors import ConfigError, StorageError
from worldflux.factory import get_env_spec
from worldflux.hub import from_pretrained
from worldflux.named_code import code_in
from worldflux.runs import Run
from worldflux.trust import Trust, require


@dataclass(frozen=True)
class Played:
    """A world model and what goes with it: who acts, where, along which data; all but it optional.

    `env` is the environment's id, `env_options` what it is made with. Recordings go to `out`.
    """

    name: str
    model: WorldModel
    out: Path
    agent: Agent | None = None
    env: str | None = None
    env_options: Mapping[str, Any] = field(default_factory=dict)
    data: Episodes | None = None


def open_played(
    source: str | Path,
    env: str | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    trust: Trust = (),
) -> Played:
    """Open a run (its best checkpoint), a saved folder or a hub id, to be played.

    `env` takes the place of the run's environment, `data` is a folder of recorded episodes.
    `TrustError` for code that a file names and `trust` does not, `StorageError` for what is
    damaged or not there.
    """
    run = _run(source)
    found_env, options = (env, {}) if env is not None else _environment(run, trust)
    episodes = None if data is None else Episodes(data)
    if episodes is not None and not len(episodes):
        raise StorageError(f"{data} holds no finished episode to start from.")
    saved = from_pretrained(source, trust=trust).to(_device(device))
    model = saved.world_model if isinstance(saved, Learner) else saved
    if env is not None:
        options = _seen_by(model, env)
    return Played(
        name=_name(saved, source),
        model=model.eval(),
        out=Path(out) if out is not None else _recordings(run),
        agent=saved.eval() if isinstance(saved, Agent) else None,
        env=found_env,
        env_options=options,
        data=episodes,
    )


def _run(source: str | Path) -> Run | None:
    run = Run(Path(source))
    return run if run.config_path.is_file() else None


def _environment(run: Run | None, trust: Trust) -> tuple[str | None, dict[str, Any]]:
    """The id and the options of a run's environment."""
    config = (run.saved_config() if run is not None else None) or {}
    room = config.get("env") or {}
    if run is None or not isinstance(room, Mapping) or "id" not in room:
        return None, {}
    require(code_in({"env": room}), trust, str(run.config_path))
    spec = get_env_spec(str(room["id"]))
    own = {key: value for key, value in room.items() if key != "id" and key not in spec.vector}
    if trust and "trust" in spec.options:
        own["trust"] = tuple(trust)
    return str(room["id"]), {**spec.evaluation, **own}


def _seen_by(model: WorldModel, env: str) -> dict[str, Any]:
    """Options with which an environment of the caller's shows what the model sees, and no more."""
    spec = get_env_spec(env)
    images = [each for each in model.obs_spec.values() if each.image]
    kind = "both" if 0 < len(images) < len(model.obs_spec) else "pixels" if images else "state"
    options: dict[str, Any] = {"obs": kind}
    if images and images[0].shape[1] == images[0].shape[2]:
        options["size"] = images[0].shape[1]
    return {**spec.evaluation, **{k: v for k, v in options.items() if k in spec.options}}


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or "cpu")
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r} is no torch device: use cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device {name}, but torch finds no CUDA device. Leave it out.")
    return device


def _name(saved: WorldModel | Learner, source: str | Path) -> str:
    """`family:preset`, else what was asked for."""
    family, preset = (saved.provenance.get(key) for key in ("family", "preset"))
    return f"{family}:{preset}" if family and preset else Path(source).name


def _recordings(run: Run | None) -> Path:
    return Path("recordings") if run is None else run.path / "play"

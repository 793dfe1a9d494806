"""Bringing a run of a comparison to its end: from nothing, from where it stopped, or not at all."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console

from worldflux.atomic import check_seal
from worldflux.errors import ConfigError, StorageError, WorldFluxError
from worldflux.runs import Run
from worldflux.yaml_text import read_yaml
from worldflux_train import api
from worldflux_train.comparison.entries import Entry
from worldflux_train.config import RunConfig, resolve
from worldflux_train.inputs import completed
from worldflux_train.nested import flat
from worldflux_train.trainer import Outcome, Trainer
from worldflux_train.trust import names_in

logger = logging.getLogger(__name__)


def bring_to_end(entry: Entry, path: Path, console: Console | None) -> Outcome:
    """Train the run in `path`, continue it, or find it finished.

    `StorageError` if its newest checkpoint cannot be loaded: it never starts over by itself.
    """
    run, config = Run(path), entry.config
    if not run.config_path.is_file():
        return api.train(config, path, console=console).outcome
    _require_same(entry, run)
    if run.ticks():
        _require_loadable(run, config)
    if ended(run, config.train.steps):
        logger.info("%s is finished", path)
        return "finished"
    # The run's file says the same as the caller's entry.
    trust = (*config.trust, *names_in(config.to_dict()))
    return api.resume(path, steps=config.train.steps, trust=trust, console=console).outcome


def ended(run: Run, steps: int) -> bool:
    """Whether the run was saved and evaluated after `steps` steps."""
    saved = run.ticks()
    measured = [row["step"] for row in run.metrics() if "eval/return" in row]
    if not saved or not measured:
        return False
    return bool(min(run.manifest(saved[-1])["step"], measured[-1]) >= steps)


def _require_same(entry: Entry, run: Run) -> None:
    """The run was made with this configuration; only its end may have moved further out."""
    kept = resolve(config=read_yaml(run.config_path))
    found, wanted = dict(flat(kept.to_dict())), dict(flat(completed(entry.config).to_dict()))
    differing = [
        f"{key} is {found.get(key)!r}, not {wanted.get(key)!r}"
        for key in sorted({*found, *wanted})
        if found.get(key) != wanted.get(key)
        and not (key == "train.steps" and found[key] < wanted[key])
    ]
    if differing:
        raise ConfigError(
            f"{run.path} holds a run of {entry.label!r} with another configuration: "
            f"{'; '.join(differing)}. Ask for the same again, or choose another --out."
        )


def _require_loadable(run: Run, config: RunConfig) -> None:
    """Load all of the newest checkpoint, as resuming would."""
    folder = run.checkpoint_path(run.ticks()[-1])
    try:
        check_seal(folder)
        trainer = Trainer(config, run)
        try:
            trainer.parts.load(folder)
        finally:
            trainer.close()
    except WorldFluxError as error:
        raise StorageError(
            f"Checkpoint {folder} does not load: {error} Restore it, delete it to go on from the "
            f"one before, or delete {run.path} to train that run again."
        ) from error

"""A checkpoint: every part of a run writes itself into one sealed folder."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from worldflux.core.source import Source
from worldflux.errors import StorageError
from worldflux.runs import Run
from worldflux_train.clock import FILE as CLOCK
from worldflux_train.clock import Clock
from worldflux_train.collector import Collector
from worldflux_train.parts import Part
from worldflux_train.replay.snapshot import FILE as LIST
from worldflux_train.replay.snapshot import prune
from worldflux_train.schedule import Schedule
from worldflux_train.updater import Updater

logger = logging.getLogger(__name__)
SOURCE = "source"


@dataclass
class Parts:
    """Everything a checkpoint holds."""

    clock: Clock
    schedule: Schedule
    collector: Collector | None
    updater: Updater
    source: Source
    patience: Part

    def each(self) -> list[Part]:
        """Those that write themselves into the checkpoint's folder, last what the agent is in."""
        own: list[Part | None] = [
            self.clock, self.schedule, self.updater, self.collector, self.patience,
        ]  # fmt: skip
        return [part for part in own if part is not None]


def save_checkpoint(
    run: Run, parts: Parts, keep_last: int, keep_every: int, score: float | None
) -> Path:
    """Write the checkpoint of this moment, then drop those no longer kept.

    The newest `keep_last` are kept, the best one, and the first one of every `keep_every` ticks.
    `StorageError` says what could not be written; older checkpoints are then as they were.
    """
    tick = parts.clock.tick
    try:
        with run.new_checkpoint(tick, step=parts.clock.step, score=score) as folder:
            for part in parts.each():
                part.save(folder)
            parts.source.save(folder / SOURCE)
    except (StorageError, SafetensorError, OSError) as error:
        ticks = run.ticks()
        kept = f"The checkpoint of step {ticks[-1]} is intact" if ticks else "There is none before"
        raise StorageError(
            f"The checkpoint of step {tick} could not be written: {error} {kept}; free space, then "
            f"continue with: worldflux train --resume {run.path}"
        ) from error
    _drop_old(run, keep_last, keep_every)
    return run.checkpoint_path(tick)


def load_newest(run: Run, parts: Parts) -> Path | None:
    """Restore the newest checkpoint that is whole, None if there is none.

    Damaged ones are logged, and set aside so that the run can write that step again.
    """
    _sweep(run)
    found = None
    for folder in run.intact_checkpoints():
        _refuse_older(folder)
        try:
            load_checkpoint(folder, run, parts)
        except StorageError as error:
            logger.warning("checkpoint %s is not used: %s", folder.name, error)
            continue
        found = folder
        break
    for tick in run.ticks():
        folder = run.checkpoint_path(tick)
        if found is None or folder.name > found.name:
            aside = folder.with_name(f"{folder.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.replace(aside)
            logger.warning("the damaged checkpoint was renamed to %s", aside)
    return found


def load_checkpoint(folder: Path, run: Run, parts: Parts) -> None:
    """Put every part into the state saved in `folder`."""
    parts.source.load(folder / SOURCE)
    for part in parts.each():
        part.load(folder)


def _refuse_older(folder: Path) -> None:
    """An intact checkpoint without a clock is none of ours: it must not be set aside as damaged."""
    if not (folder / CLOCK).is_file():
        raise StorageError(
            f"{folder} was written by an older version of WorldFlux (it has no {CLOCK}): its run "
            "cannot be continued with this one. Its agent can still be loaded; train anew in "
            "another folder, or install the version that wrote it."
        )


def milestones(ticks: list[int], every: int) -> set[int]:
    """Of `ticks` in their order, the first at or after each multiple of `every`; none for 0."""
    firsts: dict[int, int] = {}
    for tick in ticks if every else ():
        firsts.setdefault(tick // every, tick)
    return {tick for number, tick in firsts.items() if number > 0}


def _drop_old(run: Run, keep_last: int, keep_every: int) -> None:
    kept = milestones(run.ticks(), keep_every)
    keep = {*run.ticks()[-keep_last:], *kept, run.best_tick()}
    for tick in run.ticks():
        if tick not in keep:
            folder = run.checkpoint_path(tick)
            gone = folder.with_name(f".{folder.name}.gone.tmp")
            folder.replace(gone)  # at once, so that no half-deleted checkpoint is ever found
            shutil.rmtree(gone, ignore_errors=True)
    lists = [run.checkpoint_path(tick).glob(f"{SOURCE}/**/{LIST}") for tick in run.ticks()]
    prune(run.replay_path, [file.parent for found in lists for file in found])


def _sweep(run: Run) -> None:
    """Remove what a killed process left half-written."""
    for folder in run.checkpoints_path.glob(".*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)
    for file in run.path.glob(".*.tmp"):
        file.unlink(missing_ok=True)

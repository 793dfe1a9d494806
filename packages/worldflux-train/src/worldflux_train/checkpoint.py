"""A checkpoint: every part of a run writes itself into one sealed folder."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from worldflux import distributed
from worldflux.atomic import make_folder
from worldflux.core.source import Source
from worldflux.errors import StorageError
from worldflux.runs import Run
from worldflux_train.clock import FILE as CLOCK
from worldflux_train.clock import Clock
from worldflux_train.collector import Collector
from worldflux_train.parts import Part
from worldflux_train.ranks import folder_name, own
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

    def save(self, folder: Path) -> None:
        """Write all of it: what the ranks have alike, and what is rank 0's own."""
        for part in self._alike():
            part.save(folder)
        self.save_own(folder)

    def save_own(self, folder: Path) -> None:
        """Write what each rank has of its own."""
        self.updater.save_own(folder)
        if self.collector is not None:
            self.collector.save(folder)
        self.source.save(folder / SOURCE)

    def load(self, folder: Path) -> None:
        """Put every part into the state saved in a checkpoint's `folder`."""
        mine = own(folder)
        self.source.load(mine / SOURCE)
        for part in self._alike():
            part.load(folder)
        self.updater.load_own(mine)
        if self.collector is not None:
            self.collector.load(mine)

    def _alike(self) -> list[Part]:
        return [self.clock, self.schedule, self.updater, self.patience]


def save_checkpoint(
    run: Run, parts: Parts, keep_last: int, keep_every: int, score: float | None
) -> Path:
    """Write the checkpoint of this moment, then drop those no longer kept.

    The newest `keep_last` are kept, the best one, and the first one of every `keep_every` ticks.
    `StorageError` says what could not be written; older checkpoints are then as they were.
    """
    tick = parts.clock.tick
    try:
        if distributed.rank():
            draft = _draft(run, distributed.rank())
            make_folder(draft)
            parts.save_own(draft)
        distributed.wait()
        if distributed.rank() == 0:
            with run.new_checkpoint(tick, step=parts.clock.step, score=score) as folder:
                parts.save(folder)
                for number in range(1, distributed.world_size()):
                    _draft(run, number).replace(folder / folder_name(number))
            _drop_old(run, keep_last, keep_every)
        distributed.wait()
    except (StorageError, SafetensorError, OSError) as error:
        ticks = run.ticks()
        kept = f"The checkpoint of step {ticks[-1]} is intact" if ticks else "There is none before"
        raise StorageError(
            f"The checkpoint of step {tick} could not be written: {error} {kept}; free space, then "
            f"continue with: worldflux train --resume {run.path}"
        ) from error
    return run.checkpoint_path(tick)


def _draft(run: Run, number: int) -> Path:
    """Where a rank writes its own parts before rank 0 takes them into the checkpoint."""
    return run.checkpoints_path / f".{folder_name(number)}.tmp"


def load_newest(run: Run, parts: Parts) -> Path | None:
    """Restore the newest checkpoint that is whole, None if there is none.

    Damaged ones are logged, and set aside so that the run can write that step again. Rank 0
    chooses for all ranks.
    """
    found = _load_newest(run, parts) if distributed.rank() == 0 else None
    name = distributed.told(None if found is None else found.name)
    if distributed.rank() and name is not None:
        found = run.checkpoints_path / name
        parts.load(found)
    return found


def _load_newest(run: Run, parts: Parts) -> Path | None:
    _sweep(run)
    found = None
    for folder in run.intact_checkpoints():
        _refuse_older(folder)
        _refuse_other_ranks(run, folder)
        try:
            parts.load(folder)
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


def _refuse_older(folder: Path) -> None:
    """An intact checkpoint without a clock is none of ours: it must not be set aside as damaged."""
    if not (folder / CLOCK).is_file():
        raise StorageError(
            f"{folder} was written by an older version of WorldFlux (it has no {CLOCK}): its run "
            "cannot be continued with this one. Its agent can still be loaded; train anew in "
            "another folder, or install the version that wrote it."
        )


def _refuse_other_ranks(run: Run, folder: Path) -> None:
    """Sources and environments are each rank's own: as many ranks have to go on with them."""
    saved, now = 1, distributed.world_size()
    while (folder / folder_name(saved)).is_dir():
        saved += 1
    if saved != now:
        raise StorageError(
            f"{folder} was written by {saved} processes, this run has {now}. Continue it with as "
            f"many: torchrun --nproc-per-node {saved} -m worldflux train --resume {run.path}"
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
    lists = [run.checkpoint_path(tick).glob(f"**/{SOURCE}/**/{LIST}") for tick in run.ticks()]
    prune(run.replay_path, [file.parent for found in lists for file in found])


def _sweep(run: Run) -> None:
    """Remove what a killed process left half-written."""
    for folder in run.checkpoints_path.glob(".*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)
    for file in run.path.glob(".*.tmp"):
        file.unlink(missing_ok=True)

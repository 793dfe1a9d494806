"""The folder of one training run: where everything is, its metrics and its checkpoints."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldflux.atomic import (
    MANIFEST,
    check_seal,
    make_folder,
    new_folder,
    not_written,
    read_json,
    seal,
    write_file,
)
from worldflux.describe import Described, Row, short
from worldflux.errors import StorageError

logger = logging.getLogger(__name__)

AGENT = "agent"
"""Folder of the saved agent in a checkpoint."""
_TAIL = 2**16  # bytes: more than a line of metrics takes
_TICK = re.compile(r"\d+")


@dataclass(frozen=True, repr=False)
class Run(Described):
    """A run folder. Make one with `Run.create`, find an existing one with `Run.open`."""

    path: Path
    config: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """The configuration it runs with, as plain data; every checkpoint holds it under its seal."""

    def described(self) -> tuple[str, list[Row]]:
        """Its model, its environment, its checkpoints and the last line of its metrics."""
        config = self.config or self.saved_config() or {}
        held = [(key, str(config[key])) for key in ("id",) if key in config]
        env = config.get("env")
        held += [("env", str(env["id"]))] if isinstance(env, Mapping) and "id" in env else []
        ticks = self.ticks()
        kept = f"{len(ticks)}, the newest at {ticks[-1]:,}" if ticks else "none yet"
        last = self._last_metrics()
        return f"Run({str(self.path)!r})", [
            *held,
            ("checkpoints", kept),
            *([("step", f"{last['step']:,}")] if last else []),
            *((key, short(value)) for key, value in last.items() if key.startswith("eval/")),
        ]

    def _last_metrics(self) -> dict[str, Any]:
        """The last whole line of the metrics, without reading the others; empty without one."""
        if not self.metrics_path.is_file():
            return {}
        with self.metrics_path.open("rb") as stream:
            stream.seek(max(self.metrics_path.stat().st_size - _TAIL, 0))
            lines = stream.read().split(b"\n")[:-1]
        return (_parsed(lines[-1]) if lines else None) or {}

    @classmethod
    def create(cls, path: str | Path) -> Run:
        """A new run in a folder that is absent or empty."""
        run = cls(Path(path))
        if run.path.exists() and not run.path.is_dir():
            raise StorageError(f"{run.path} is a file. Choose another --out.")
        # What was killed before it had a configuration left empty folders of ours.
        if any(not inner.is_dir() or inner.is_symlink() for inner in run.path.rglob("*")):
            advice = "Choose another --out"
            if run.config_path.is_file():
                advice += f", or continue the run in it with --resume {run.path}"
            raise StorageError(f"{run.path} is not empty. {advice}.")
        for folder in (run.checkpoints_path, run.replay_path, run.videos_path):
            make_folder(folder)
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in `path`."""
        run = cls(Path(path))
        if not run.config_path.is_file():
            raise StorageError(
                f"{run.path} is not a run: it has no {run.config_path.name}. Give the folder that "
                "was passed to --out."
            )
        return run

    @property
    def config_path(self) -> Path:
        """The resolved configuration; running it again repeats the run."""
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def log_path(self) -> Path:
        """What was logged, as text."""
        return self.path / "run.log"

    @property
    def report_path(self) -> Path:
        """The self-contained report."""
        return self.path / "report.html"

    @property
    def checkpoints_path(self) -> Path:
        """Folder of the checkpoints, each named after its tick."""
        return self.path / "checkpoints"

    @property
    def replay_path(self) -> Path:
        """Folder of the replay's blocks, shared by all checkpoints."""
        return self.path / "replay"

    @property
    def videos_path(self) -> Path:
        """Folder of the videos."""
        return self.path / "videos"

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one line to the metrics. Non-finite numbers are written as "nan", "inf", "-inf"."""
        line = json.dumps({key: _to_json(value) for key, value in row.items()}) + "\n"
        try:
            with self.metrics_path.open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            raise not_written(self.metrics_path, error) from error

    def metrics(self) -> list[dict[str, Any]]:
        """Every line of the metrics; a last line cut off by a kill is left out.

        So are damaged lines (no UTF-8, no JSON object, no number as "step"), with a warning.
        """
        if not self.metrics_path.is_file():
            return []
        lines = self.metrics_path.read_bytes().split(b"\n")[:-1]
        rows = {number: _parsed(line) for number, line in enumerate(lines, 1)}
        damaged = [number for number, row in rows.items() if row is None]
        if damaged:
            logger.warning(
                "%s: %d damaged lines are left out, the first is line %d",
                self.metrics_path, len(damaged), damaged[0],
            )  # fmt: skip
        return [row for row in rows.values() if row is not None]

    def rewind_metrics(self, tick: int, *, drop: str | None = None) -> None:
        """Drop what was measured after `tick` and rows with a true `drop`, in one atomic write."""
        rows = [row for row in self.metrics() if row.get("tick", row["step"]) <= tick]
        kept = [row for row in rows if drop is None or not row.get(drop)]
        lines = [json.dumps({key: _to_json(value) for key, value in row.items()}) for row in kept]
        write_file(self.metrics_path, "".join(f"{line}\n" for line in lines).encode())

    def ticks(self) -> list[int]:
        """Ticks of the finished checkpoints, oldest first.

        A tick counts the steps of the run's clock, and the updates of bursts, during which the
        clock stands still: without bursts it is the step.
        """
        if not self.checkpoints_path.is_dir():
            return []
        names = [folder.name for folder in self.checkpoints_path.iterdir() if folder.is_dir()]
        return sorted(int(name) for name in names if _TICK.fullmatch(name))

    def checkpoint_path(self, tick: int) -> Path:
        """Folder of the checkpoint taken at `tick`; sorts by name."""
        return self.checkpoints_path / f"{tick:010d}"

    @contextmanager
    def new_checkpoint(self, tick: int, **about: Any) -> Iterator[Path]:
        """An empty folder to fill; leaving it seals it with sha256s and puts it in its place."""
        with new_folder(self.checkpoint_path(tick)) as draft:
            yield draft
            seal(draft, tick=tick, config=self.config, **about)

    def intact_checkpoints(self) -> Iterator[Path]:
        """Checkpoints whose every file is intact, newest first; others are logged and passed."""
        for tick in reversed(self.ticks()):
            folder = self.checkpoint_path(tick)
            try:
                check_seal(folder)
            except StorageError as error:
                logger.warning("checkpoint %s is not used: %s", folder.name, error)
            else:
                yield folder

    def latest_checkpoint(self) -> Path | None:
        """The newest intact checkpoint."""
        return next(self.intact_checkpoints(), None)

    def best_tick(self) -> int | None:
        """Tick of the kept checkpoint with the best evaluation; None where none was evaluated."""
        scores = {tick: self.manifest(tick).get("score") for tick in self.ticks()}
        known = {tick: score for tick, score in scores.items() if score is not None}
        return max(known, key=lambda tick: (known[tick], tick)) if known else None

    def best_checkpoint(self) -> Path:
        """The intact checkpoint with the best evaluation, else the newest; `StorageError`."""
        intact = list(self.intact_checkpoints())
        if not intact:
            raise StorageError(
                f"{self.path} has no intact checkpoint yet. Train on: worldflux train --resume "
                f"{self.path}"
            )
        best = self.best_tick()
        return next((folder for folder in intact if int(folder.name) == best), intact[0])

    def manifest(self, tick: int) -> dict[str, Any]:
        """What a checkpoint says about itself."""
        return read_json(self.checkpoint_path(tick) / MANIFEST)

    def saved_config(self) -> dict[str, Any] | None:
        """The configuration in the newest checkpoint that can be read; None if there is none."""
        for tick in reversed(self.ticks()):
            try:
                config = self.manifest(tick).get("config")
            except StorageError:
                continue  # `intact_checkpoints` says so where that checkpoint would be used
            if isinstance(config, dict):
                return config
        return None


def having(rows: Iterable[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Rows in which all of `keys` are numbers; the others lack one of them or were damaged."""
    return [row for row in rows if all(_is_number(row.get(key)) for key in keys)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """One row; None where the line is none."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) else None
    if not _is_number(step):
        return None
    return {key: _from_json(value) for key, value in row.items()}


def _to_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value


def _from_json(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value

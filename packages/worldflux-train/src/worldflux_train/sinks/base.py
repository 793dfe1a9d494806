"""What a metric sink is, and the one that is always there."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from worldflux.errors import StorageError
from worldflux.runs import Run, having

Row = Mapping[str, Any]


class Sink(Protocol):
    """Receives every row of metrics: "step" is the clock, "tick" goes on in bursts."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def close(self) -> None:
        """The run is over."""


@runtime_checkable
class ShowsVideos(Protocol):
    """A sink that shows videos, too."""

    def show(self, videos: Mapping[str, Any], tick: int) -> None:
        """Take the videos of an evaluation, by name: uint8 (T, Y, X, 3)."""


class JsonlSink:
    """Appends to the run's `metrics.jsonl`, with the seconds the run has taken up to each row.

    A resumed run counts on from the last row it kept; CPU seconds are those of all threads and of
    child processes that ended.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        kept: Row = next(reversed(having(run.metrics(), "time/wall", "time/cpu")), {})
        self._wall = time.monotonic() - float(kept.get("time/wall", 0.0))
        self._cpu = _cpu_seconds() - float(kept.get("time/cpu", 0.0))

    def write(self, row: Row) -> None:
        wall, cpu = time.monotonic() - self._wall, _cpu_seconds() - self._cpu
        try:
            self.run.append_metrics({**row, "time/wall": wall, "time/cpu": cpu})
        except OSError as error:
            raise StorageError(
                f"{self.run.metrics_path} could not be written: {error.strerror or error}. Free "
                f"space, then continue with: worldflux train --resume {self.run.path}"
            ) from error

    def close(self) -> None:
        pass


def numbers(row: Row) -> dict[str, float]:
    """The plottable part of a row."""
    return {
        key: float(value)
        for key, value in row.items()
        if key not in ("step", "tick")
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    }


def _cpu_seconds() -> float:
    return sum(os.times()[:4])

"""What a metric sink is, and the one that is always there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from worldflux.runs import Run

Row = Mapping[str, Any]


class Sink(Protocol):
    """Receives every row of metrics; `row["step"]` counts agent steps."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def close(self) -> None:
        """The run is over."""


class JsonlSink:
    """Appends to the run's `metrics.jsonl`."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def write(self, row: Row) -> None:
        self.run.append_metrics(row)

    def close(self) -> None:
        pass


def numbers(row: Row) -> dict[str, float]:
    """The plottable part of a row."""
    return {
        key: float(value)
        for key, value in row.items()
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }

"""Scores of trained agents as a table: Markdown, LaTeX, CSV, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from worldflux.atomic import write_file
from worldflux.errors import ConfigError
from worldflux_train.comparison.results import Interval
from worldflux_train.comparison.tables import as_csv, number, pipes, tabular, with_interval
from worldflux_train.statistics import Scores, iqm, mean, median

STATISTICS = {"IQM": iqm, "mean": mean, "median": median}


@dataclass(frozen=True)
class Line:
    """A row of the table. `samples` are (N,), or (N, M) scores where it stands for M environments;
    `statistics` are over them."""

    run: str
    model: str
    step: int | None
    env: str
    samples: Scores
    what: Literal["return", "normalised return"]
    over: str
    statistics: Mapping[str, Interval]


def markdown(found: Sequence[Line]) -> str:
    """The lines as a pipe table."""
    return pipes(*_cells(found))


def latex(found: Sequence[Line]) -> str:
    """The lines as a `tabular`."""
    return tabular(*_cells(found))


def csv(found: Sequence[Line]) -> str:
    """The lines with every statistic and its bounds."""
    ends = [f"{name}{end}" for name in STATISTICS for end in ("", "_low", "_high")]
    rows = (
        [
            line.run, line.model, line.step, line.env, line.what, line.over,
            *(x for s in line.statistics.values() for x in (s.value, s.low, s.high)),
            line.samples.min(), line.samples.max(),
        ]
        for line in found
    )  # fmt: skip
    return as_csv(["run", "model", "step", "env", "what", "over", *ends, "min", "max"], rows)


def to_json(found: Sequence[Line]) -> str:
    """The lines with their samples."""
    rows = [
        {
            "run": line.run, "model": line.model, "step": line.step, "env": line.env,
            "what": line.what, "over": line.over, "samples": line.samples.tolist(),
            **{
                name: {"value": s.value, "low": s.low, "high": s.high}
                for name, s in line.statistics.items()
            },
        }
        for line in found
    ]  # fmt: skip
    return json.dumps(rows, indent=2) + "\n"


FORMATS: dict[str, Callable[[Sequence[Line]], str]] = {
    ".csv": csv, ".md": markdown, ".tex": latex, ".json": to_json,
}  # fmt: skip
"""What a table can be written as, by the suffix of its file."""


def write_scores(found: Sequence[Line], file: str | Path) -> Path:
    """Write the lines to `file`; its suffix says how."""
    path = Path(file)
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: tables are written as {', '.join(FORMATS)}.")
    write_file(path, FORMATS[path.suffix](found).encode())
    return path


def _cells(found: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            line.run, line.model, "-" if line.step is None else f"{line.step:,}", line.env,
            *(with_interval(s) for s in line.statistics.values()),
            number(float(line.samples.min())), number(float(line.samples.max())), line.over,
        ]
        for line in found
    ]  # fmt: skip
    titles = ["Run", "Model", "Step", "Environment", *STATISTICS, "Min", "Max", "Over"]
    return titles, rows

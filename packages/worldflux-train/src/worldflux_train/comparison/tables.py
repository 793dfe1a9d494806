"""A comparison as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import timedelta

from worldflux_train.comparison.results import Finished, Interval, Scale, Standing

Cells = Sequence[object]
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}


def heads(scale: Scale) -> list[str]:
    """Titles of the columns that `cells` fills."""
    gap = f"Gap to {number(scale.gamma)}"
    return ["Model", "Seeds", "IQM", "Mean", "Median", gap, "Wall time", "CPU time"]


def cells(standing: Standing) -> list[str]:
    """A model's row for readers."""
    return [
        standing.label,
        str(len(standing.scores)),
        *map(with_interval, standing.statistics.values()),
        duration(standing.wall),
        duration(standing.cpu),
    ]


def markdown(found: Sequence[Standing], scale: Scale) -> str:
    """A pipe table."""
    titles = heads(scale)
    rule = ["---", *["---:"] * (len(titles) - 1)]
    rows = [[cell.replace("|", r"\|") for cell in cells(standing)] for standing in found]
    return "".join(f"| {' | '.join(row)} |\n" for row in [titles, rule, *rows])


def latex(found: Sequence[Standing], scale: Scale) -> str:
    """A `tabular` that needs no package."""
    titles = heads(scale)
    rows = [" & ".join(map(_escaped, row)) + r" \\" for row in [titles, *map(cells, found)]]
    top = rf"\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}"
    lines = [top, r"\hline", rows[0], r"\hline", *rows[1:], r"\hline", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def table_csv(found: Sequence[Standing]) -> str:
    """A row for each model, every statistic with its bounds."""
    names = list(found[0].statistics)
    titles = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    rows = (
        [
            standing.label, standing.model, len(standing.scores),
            *(x for s in standing.statistics.values() for x in (s.value, s.low, s.high)),
            standing.wall, standing.cpu,
        ]
        for standing in found
    )  # fmt: skip
    return _csv(["model", "id", "seeds", *titles, "wall_seconds", "cpu_seconds"], rows)


def curves_csv(runs: Iterable[Finished]) -> str:
    """A row for each evaluation of each run."""
    rows = (
        [
            run.entry.label, run.entry.seed, row["step"], row["eval/return"],
            row["eval/return_std"], row["eval/episodes"], row["time/wall"], row["time/cpu"],
        ]
        for run in runs
        for row in run.evaluations
    )  # fmt: skip
    titles = ["model", "seed", "step", "return", "return_std", "episodes"]
    return _csv([*titles, "wall_seconds", "cpu_seconds"], rows)


def with_interval(found: Interval) -> str:
    """`12.3 [11.0, 14.1]`."""
    if found.low is None or found.high is None:
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def number(value: float) -> str:
    """Three decimals below 10, one above."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def duration(seconds: float) -> str:
    """`0:12:34`, or seconds below a minute."""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _csv(titles: Cells, rows: Iterable[Cells]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(rows)
    return buffer.getvalue()

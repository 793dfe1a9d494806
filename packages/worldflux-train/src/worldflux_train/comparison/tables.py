"""A comparison as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import timedelta

from worldflux_train.comparison.profiles import Profile
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
    return pipes(heads(scale), [cells(standing) for standing in found])


def latex(found: Sequence[Standing], scale: Scale) -> str:
    """A `tabular` that needs no package."""
    return tabular(heads(scale), [cells(standing) for standing in found])


def task_rows(found: Sequence[Standing]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the IQM of the returns: a row for each environment, a column a model."""
    rows = [
        [env, *(with_interval(standing.tasks[env].iqm) for standing in found)]
        for env in found[0].tasks
    ]
    return ["Environment", *(standing.label for standing in found)], rows


def tasks_markdown(found: Sequence[Standing]) -> str:
    """`task_rows` as a pipe table."""
    return pipes(*task_rows(found))


def tasks_latex(found: Sequence[Standing]) -> str:
    """`task_rows` as a `tabular`."""
    return tabular(*task_rows(found))


def tasks_csv(found: Sequence[Standing], scale: Scale) -> str:
    """A row for each model and environment: the IQM of the returns, and the mean score."""
    rows = (
        [
            env, standing.label, len(reached.returns), reached.iqm.value, reached.iqm.low,
            reached.iqm.high, reached.score, *scale.tasks[env],
        ]
        for standing in found
        for env, reached in standing.tasks.items()
    )  # fmt: skip
    titles = ["env", "model", "seeds", "return_IQM", "return_IQM_low", "return_IQM_high", "score"]
    return as_csv([*titles, "return_of_0", "return_of_1"], rows)


def profile_csv(found: Sequence[Profile]) -> str:
    """A row for each model and score: the share of its runs above that score."""
    rows = (
        [
            of.label,
            tau,
            of.share[i],
            *(None if end is None else end[i] for end in (of.low, of.high)),
        ]
        for of in found
        for i, tau in enumerate(of.taus)
    )
    return as_csv(["model", "score", "share", "share_low", "share_high"], rows)


def pipes(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table whose numbers stand on the right."""
    rule = ["---", *["---:"] * (len(titles) - 1)]
    cut = [[cell.replace("|", r"\|") for cell in row] for row in [titles, *rows]]
    return "".join(f"| {' | '.join(row)} |\n" for row in [cut[0], rule, *cut[1:]])


def tabular(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A LaTeX `tabular` whose numbers stand on the right."""
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in [titles, *rows]]
    top = rf"\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}"
    whole = [top, r"\hline", lines[0], r"\hline", *lines[1:], r"\hline", r"\end{tabular}"]
    return "\n".join(whole) + "\n"


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
    return as_csv(["model", "id", "seeds", *titles, "wall_seconds", "cpu_seconds"], rows)


def curves_csv(runs: Iterable[Finished]) -> str:
    """A row for each evaluation of each run."""
    rows = (
        [
            run.entry.label, run.entry.place.env, run.entry.seed, row["step"], row["eval/return"],
            row["eval/return_std"], row["eval/episodes"], row["time/wall"], row["time/cpu"],
        ]
        for run in runs
        for row in run.evaluations
    )  # fmt: skip
    titles = ["model", "env", "seed", "step", "return", "return_std", "episodes"]
    return as_csv([*titles, "wall_seconds", "cpu_seconds"], rows)


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


def as_csv(titles: Cells, rows: Iterable[Cells]) -> str:
    """Titles and rows as CSV; None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(rows)
    return buffer.getvalue()

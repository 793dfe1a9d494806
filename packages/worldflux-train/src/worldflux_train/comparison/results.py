"""What the runs of a comparison reached: scores, learning curves, statistics with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.errors import StorageError
from worldflux.ids import EnvId
from worldflux.runs import Run, having
from worldflux_train.comparison.entries import Entry
from worldflux_train.statistics import (
    Scores,
    Statistic,
    atari_game,
    bootstrap_ci,
    human_normalized,
    iqm,
    mean,
    median,
    optimality_gap,
)

END = math.inf
MEASURED = ("eval/return", "eval/return_std", "eval/episodes", "time/wall", "time/cpu")


@dataclass(frozen=True)
class Finished:
    """One finished run; an evaluation is a row of its metrics."""

    entry: Entry
    evaluations: list[dict[str, Any]]

    @property
    def final(self) -> float:
        """Mean return of the evaluation at the end."""
        return float(self.evaluations[-1]["eval/return"])

    @property
    def wall(self) -> float:
        """Seconds from begin to end, without what a kill lost."""
        return float(self.evaluations[-1]["time/wall"])

    @property
    def cpu(self) -> float:
        """CPU seconds over all threads."""
        return float(self.evaluations[-1]["time/cpu"])


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95 % bootstrap interval; a single run has none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """Interquartile mean over the runs of a model at common points of training."""

    steps: list[float]
    values: list[Interval]


@dataclass(frozen=True)
class Standing:
    """What one model reached; `statistics` by name, over `scores` (N,)."""

    label: str
    model: str
    scores: Scores
    statistics: dict[str, Interval]
    curve: Curve
    wall: float
    cpu: float


@dataclass(frozen=True)
class Scale:
    """What scores are measured in, and the score that counts as optimal."""

    unit: str
    gamma: float
    game: str | None = None

    def scores(self, runs: Sequence[Finished]) -> Scores:
        """Final scores (N,)."""
        returns = [run.final for run in runs]
        return human_normalized({self.game: returns})[:, 0] if self.game else np.array(returns)


def read_run(entry: Entry, path: Path) -> Finished:
    """The evaluations of a run that is at its end."""
    rows = having(Run.open(path).metrics(), *MEASURED)
    steps = entry.config.train.steps
    if not rows or rows[-1]["step"] < steps:
        raise StorageError(
            f"{path} has no evaluation at its end, step {steps}. Delete it to train it again."
        )
    return Finished(entry, rows)


def scale_of(runs: Sequence[Finished], target: float | None) -> Scale:
    """Human-normalised for the games of Atari 100k; elsewhere returns, and the best is optimal."""
    env = EnvId.parse(runs[0].entry.config.env_id)
    game = atari_game(env.task) if env.backend == "atari" else None
    if game is not None:
        return Scale("human-normalised return", 1.0 if target is None else target, game)
    return Scale("return", max(run.final for run in runs) if target is None else target)


def standings(runs: Sequence[Finished], scale: Scale) -> list[Standing]:
    """One for each model, in the order in which they were given."""
    labels = dict.fromkeys(run.entry.label for run in runs)
    return [_standing([run for run in runs if run.entry.label == label], scale) for label in labels]


def _standing(runs: list[Finished], scale: Scale) -> Standing:
    scores = scale.scores(runs)
    gap = partial(optimality_gap, gamma=scale.gamma)
    kinds: dict[str, Statistic] = {"IQM": iqm, "mean": mean, "median": median, "gap": gap}
    return Standing(
        runs[0].entry.label,
        runs[0].entry.config.id,
        scores,
        {name: interval(scores, statistic) for name, statistic in kinds.items()},
        _curve(runs),
        float(np.mean([run.wall for run in runs])),
        float(np.mean([run.cpu for run in runs])),
    )


def interval(scores: Scores, statistic: Statistic) -> Interval:
    """The statistic of scores (N,), with an interval where there are runs to resample."""
    if len(scores) == 1:
        return Interval(statistic(scores))
    return Interval(statistic(scores), *bootstrap_ci(scores, statistic))


def _curve(runs: Sequence[Finished]) -> Curve:
    """At the points that every run was evaluated at."""
    by_point = [{_point(run, row): row for row in run.evaluations} for run in runs]
    common = sorted(set.intersection(*(set(found) for found in by_point)))
    rows = [[found[point] for found in by_point] for point in common]
    return Curve(
        [float(np.mean([row["step"] for row in at])) for at in rows],
        [interval(np.array([row["eval/return"] for row in at]), iqm) for at in rows],
    )


def _point(run: Finished, row: dict[str, Any]) -> float:
    """Which evaluation this is: rounds end a little after the step that calls for one."""
    every, end = run.entry.config.train.eval_every, run.entry.config.train.steps
    if row["step"] >= end:
        return END
    return float(row["step"] // every if every else row["step"])

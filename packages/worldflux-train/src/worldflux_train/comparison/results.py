"""What the runs of a comparison reached: scores, learning curves, statistics with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.errors import StorageError
from worldflux.runs import Run, having
from worldflux_train.comparison.entries import Entry
from worldflux_train.comparison.suites import human_reference
from worldflux_train.statistics import (
    Scores,
    Statistic,
    bootstrap_ci,
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
    """Interquartile mean over the runs of a model, at common points of training."""

    steps: list[float]
    values: list[Interval]


@dataclass(frozen=True)
class Reached:
    """What one model reached in one environment: undiscounted returns (N,) of its N runs."""

    returns: Scores
    score: float
    """Mean over the runs in the comparison's unit."""
    iqm: Interval
    """Of the returns."""
    curve: Curve


@dataclass(frozen=True)
class Standing:
    """What one model reached; `statistics` by name, over `scores`: (N,) of N runs in the one
    environment, or (N, M) in M of them. `curve` is in the unit of the scores."""

    label: str
    model: str
    scores: Scores
    statistics: dict[str, Interval]
    curve: Curve
    wall: float
    cpu: float
    tasks: dict[str, Reached] = field(default_factory=dict)
    """By environment."""


@dataclass(frozen=True)
class Scale:
    """What scores are measured in, and the score that counts as optimal."""

    unit: str
    gamma: float
    tasks: Mapping[str, tuple[float, float]]
    """By environment, the returns that are scores of 0 and 1."""
    human: bool = False
    """Whether 1 is a human's score."""
    relative: bool = False
    """Whether some of `tasks` are the lowest and highest final returns of this comparison."""

    def score(self, env: str, returns: Any) -> Any:
        """Returns as scores, of any shape."""
        low, high = self.tasks[env]
        return (np.asarray(returns, np.float64) - low) / (high - low)

    def scores(self, runs: Sequence[Finished]) -> Scores:
        """Final scores of one model's runs: (N,), or (N, M) in several environments."""
        found = [self.score(env, [run.final for run in own]) for env, own in by_env(runs).items()]
        return np.array(found[0]) if len(found) == 1 else np.stack(found, 1)


def by_env(runs: Sequence[Finished]) -> dict[str, list[Finished]]:
    """Runs by their environment, in the order in which these were given."""
    found: dict[str, list[Finished]] = {}
    for run in runs:
        found.setdefault(run.entry.place.env, []).append(run)
    return found


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
    """Normalised where the returns of 0 and 1 are known, or where there are several environments.

    Those that are not known are then the lowest and the highest final return of the comparison. In
    one environment without them scores are returns, and the best is optimal.
    """
    groups = by_env(runs)
    places = {env: own[0].entry.place for env, own in groups.items()}
    known = {env: (place.low, place.high) for env, place in places.items()}
    if len(groups) == 1 and None in known[next(iter(groups))]:
        best = max(run.final for run in runs) if target is None else target
        return Scale("return", best, {next(iter(groups)): (0.0, 1.0)})
    tasks = {env: _ends(low, high, groups[env]) for env, (low, high) in known.items()}
    human = all(human_reference(env) == ends for env, ends in tasks.items())
    unit = "human-normalised return" if human else "normalised return"
    relative = any(None in ends for ends in known.values())
    return Scale(unit, 1.0 if target is None else target, tasks, human, relative)


def _ends(low: float | None, high: float | None, runs: Sequence[Finished]) -> tuple[float, float]:
    if low is not None and high is not None:
        return low, high
    finals = [run.final for run in runs]
    return min(finals), max(finals) if max(finals) > min(finals) else min(finals) + 1.0


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
        _curve(runs, scale),
        float(np.mean([run.wall for run in runs])),
        float(np.mean([run.cpu for run in runs])),
        {env: _reached(own, scale) for env, own in by_env(runs).items()},
    )


def _reached(runs: list[Finished], scale: Scale) -> Reached:
    env, returns = runs[0].entry.place.env, np.array([run.final for run in runs])
    score = float(np.mean(scale.score(env, returns)))
    as_they_are = replace(scale, tasks={env: (0.0, 1.0)})
    return Reached(returns, score, interval(returns, iqm), _curve(runs, as_they_are))


def interval(scores: Scores, statistic: Statistic) -> Interval:
    """The statistic of scores (N,), with an interval where there are runs to resample."""
    if len(scores) == 1:
        return Interval(statistic(scores))
    return Interval(statistic(scores), *bootstrap_ci(scores, statistic))


def _curve(runs: Sequence[Finished], scale: Scale) -> Curve:
    """At the points that every run was evaluated at."""
    by_point = [{_point(run, row): row for row in run.evaluations} for run in runs]
    common = sorted(set.intersection(*(set(found) for found in by_point)))
    steps, values = [], []
    for point in common:
        rows = [found[point] for found in by_point]
        steps.append(float(np.mean([row["step"] for row in rows])))
        at: dict[str, list[float]] = {}
        for run, row in zip(runs, rows, strict=True):
            at.setdefault(run.entry.place.env, []).append(row["eval/return"])
        values.append(interval(np.stack([scale.score(*each) for each in at.items()], 1), iqm))
    return Curve(steps, values)


def _point(run: Finished, row: dict[str, Any]) -> float:
    """Which evaluation this is: rounds end a little after the step that calls for one."""
    every, end = run.entry.config.train.eval_every, run.entry.config.train.steps
    if row["step"] >= end:
        return END
    return float(row["step"] // every if every else row["step"])

"""Statistics of a few runs on some tasks, as Agarwal et al. 2021 recommend (NeurIPS, "Deep RL at
the edge of the statistical precipice").

Scores are `(N,)`, N runs of one task, or `(..., N, M)`, N runs of M tasks; leading axes are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldflux.errors import ConfigError, ContractError, UnknownIdError, did_you_mean

Scores = NDArray[np.float64]
Statistic = Callable[[Scores], Any]
RESAMPLED_AT_ONCE = 2_000_000


def iqm(scores: ArrayLike) -> Any:
    """Interquartile mean: of all N·M scores without the lowest and the highest quarter.

    A quarter is rounded down, so up to three scores are simply averaged.
    """
    x = as_scores(scores)  # (..., N, M)
    pooled = np.sort(x.reshape(*x.shape[:-2], -1), -1)  # (..., N*M)
    cut = pooled.shape[-1] // 4
    return _plain(pooled[..., cut : pooled.shape[-1] - cut].mean(-1))


def mean(scores: ArrayLike) -> Any:
    """Mean over runs and tasks."""
    return _plain(as_scores(scores).mean((-2, -1)))


def median(scores: ArrayLike) -> Any:
    """Median over tasks of the tasks' means; of one task alone, the median over its runs."""
    x = as_scores(scores)  # (..., N, M)
    return _plain(np.median(x[..., 0] if x.shape[-1] == 1 else x.mean(-2), -1))


def optimality_gap(scores: ArrayLike, gamma: float = 1.0) -> Any:
    """By how much scores fall short of `gamma` on average; what lies above it counts as `gamma`."""
    if not np.isfinite(gamma):
        raise ContractError(f"The optimality gap needs a finite gamma, got {gamma}.")
    return _plain((gamma - np.minimum(as_scores(scores), gamma)).mean((-2, -1)))


def performance_profile(scores: ArrayLike, taus: ArrayLike) -> Any:
    """The share of all N·M scores above each of `taus` (T,): `(..., T)`."""
    x = as_scores(scores)  # (..., N, M)
    over = np.asarray(taus, np.float64)  # (T,)
    return (x[..., None] > over).mean((-3, -2))


def bootstrap_ci(
    scores: ArrayLike,
    statistic: Statistic = iqm,
    *,
    confidence: float = 0.95,
    repetitions: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of `statistic` under resampling of the runs, for each task on its own.

    `statistic` maps `(R, N, M)` to `(R,)`, as those of this module do.
    """
    low, high = bootstrap_band(
        scores, statistic, (), confidence=confidence, repetitions=repetitions, seed=seed
    )
    return float(low), float(high)


def bootstrap_band(
    scores: ArrayLike,
    statistic: Statistic,
    shape: tuple[int, ...],
    *,
    confidence: float = 0.95,
    repetitions: int = 2000,
    seed: int = 0,
) -> tuple[Scores, Scores]:
    """As `bootstrap_ci`, of a statistic that maps `(R, N, M)` to `(R, *shape)`: two `shape`s."""
    x = as_scores(scores)
    if x.ndim != 2 or len(x) < 2:
        raise ContractError(
            f"A bootstrap interval needs scores (N,) or (N, M) of N >= 2 runs, got {x.shape}. "
            "Train more seeds."
        )
    if not 0 < confidence < 1 or repetitions < 1:
        raise ConfigError(
            "A bootstrap interval needs 0 < confidence < 1 and repetitions >= 1, got "
            f"{confidence} and {repetitions}."
        )
    size = x.size * math.prod(shape)
    random, at_once = np.random.default_rng(seed), max(1, RESAMPLED_AT_ONCE // size)
    found = [
        _resampled(x, statistic, shape, min(at_once, repetitions - done), random)
        for done in range(0, repetitions, at_once)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail], axis=0)
    return low, high


def human_normalized(scores: Mapping[str, ArrayLike]) -> Scores:
    """Scores of Atari games by name as `(N, M)`: 0 is random play, 1 the human of the benchmark."""
    columns = []
    for name, values in scores.items():
        random, human = _reference(name)
        columns.append((np.atleast_1d(np.asarray(values, np.float64)) - random) / (human - random))
    lengths = {name: len(column) for name, column in zip(scores, columns, strict=True)}
    if len(set(lengths.values())) != 1:
        raise ContractError(f"Every game needs equally many runs, got {lengths or 'no game'}.")
    return as_scores(np.stack(columns, 1))


@cache
def atari_100k() -> dict[str, dict[str, float]]:
    """Returns of random play and of the human, for the 26 games of Atari 100k."""
    text = Path(__file__).with_name("atari100k.json").read_text("utf-8")
    games: dict[str, dict[str, float]] = json.loads(text)["games"]
    return games


def atari_game(task: str) -> str | None:
    """The Atari 100k game that `task` names in any spelling: `ms_pacman` is `MsPacman`."""
    spelled = {game.lower(): game for game in atari_100k()}
    return spelled.get(task.lower().replace("_", "").replace("-", ""))


def as_scores(scores: ArrayLike) -> Scores:
    """Scores as `(..., N, M)`, refused where there are none or one of them is not finite."""
    x = np.asarray(scores, np.float64)
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim < 2 or x.size == 0:
        raise ContractError(f"Scores are (N,) or (..., N, M) and not empty, got {x.shape}.")
    if not np.isfinite(x).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise ContractError(
            f"Scores have to be finite: {np.count_nonzero(~np.isfinite(x))} of {x.size} are not, "
            f"the first is {x[at]} at {at} of {x.shape}. Leave that run out only if you say so."
        )
    return x


def _resampled(
    x: Scores,
    statistic: Statistic,
    shape: tuple[int, ...],
    repetitions: int,
    random: np.random.Generator,
) -> Scores:
    """The statistic (R, *shape) of R data sets, whose every task draws its own N runs."""
    runs, tasks = x.shape
    drawn = random.integers(runs, size=(repetitions, runs, tasks))
    found = np.asarray(statistic(x[drawn, np.arange(tasks)]))
    if found.shape != (repetitions, *shape):
        wanted = f"(R{''.join(f', {size}' for size in shape) or ','})"
        raise ContractError(
            f"A bootstrapped statistic maps (R, N, M) to {wanted}: for R={repetitions} it returned "
            f"{found.shape}. Reduce the last two axes only."
        )
    return found


def _reference(name: str) -> tuple[float, float]:
    game = atari_game(name)
    if game is None:
        known = atari_100k()
        raise UnknownIdError(
            f"{name!r} is no game of Atari 100k.{did_you_mean(name, known)} Games: "
            f"{', '.join(known)}."
        )
    return atari_100k()[game]["random"], atari_100k()[game]["human"]


def _plain(values: Scores) -> Any:
    """A float where no axis is left."""
    return float(values) if np.ndim(values) == 0 else values

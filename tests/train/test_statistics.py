"""Statistics against slow references, known distributions and the published Atari 100k numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldflux.errors import ConfigError, ContractError, UnknownIdError
from worldflux_train.statistics import (
    atari_100k,
    atari_game,
    bootstrap_ci,
    human_normalized,
    iqm,
    mean,
    median,
    optimality_gap,
)

PUBLISHED = json.loads(Path(__file__).with_name("atari100k_published.json").read_text())


@pytest.mark.parametrize(
    ("agent", "of_mean", "of_median", "of_iqm", "gap"),
    [("IRIS", 1.046, 0.289, 0.501, 0.512), ("DIAMOND", 1.459, 0.373, 0.641, 0.480)],
)
def test_published_atari_100k(
    agent: str, of_mean: float, of_median: float, of_iqm: float, gap: float
) -> None:
    scores = human_normalized(PUBLISHED["runs"][agent])
    assert scores.shape == (5, 26) and "github.com" in PUBLISHED["source"][agent]
    found = [mean(scores), median(scores), iqm(scores), optimality_gap(scores)]
    assert [round(value, 3) for value in found] == [of_mean, of_median, of_iqm, gap]
    low, high = bootstrap_ci(scores, iqm)
    assert low < of_iqm < high < low + 0.2


def test_normalisation_is_0_at_random_and_1_at_human() -> None:
    assert len(atari_100k()) == 26
    for end, value in (("random", 0.0), ("human", 1.0)):
        scores = human_normalized({game: [row[end]] for game, row in atari_100k().items()})
        np.testing.assert_allclose(scores, np.full((1, 26), value), atol=1e-12)
    np.testing.assert_allclose(human_normalized({"Pong": -3.05}), [[0.5]])


@pytest.mark.parametrize("name", ["MsPacman", "ms_pacman", "ms-pacman", "mspacman"])
def test_games_in_any_spelling(name: str) -> None:
    assert atari_game(name) == "MsPacman"


def test_unknown_game_and_unequal_runs() -> None:
    assert atari_game("pendulum") is None
    with pytest.raises(UnknownIdError, match=r"'Pung' is no game of Atari 100k\. Did you mean 'Po"):
        human_normalized({"Pung": [1.0]})
    with pytest.raises(ContractError, match=r"equally many runs, got {'Pong': 2, 'Alien': 1}"):
        human_normalized({"Pong": [1.0, 2.0], "Alien": [3.0]})
    with pytest.raises(ContractError, match=r"equally many runs, got no game\."):
        human_normalized({})


def _slow_iqm(scores: Any) -> float:
    """One score at a time: drop the lowest, then the highest, a quarter of each."""
    left = [float(value) for value in np.ravel(scores)]
    for _ in range(len(left) // 4):
        left.remove(min(left))
        left.remove(max(left))
    return sum(left) / len(left)


@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (5,), (8,), (11,), (5, 26), (3, 2), (1, 7)])
def test_iqm_equals_the_slow_one(shape: tuple[int, ...]) -> None:
    scores = np.random.default_rng(7).normal(size=shape)
    assert iqm(scores) == pytest.approx(_slow_iqm(scores), abs=1e-12)


def test_iqm_ignores_the_outer_quarters_only() -> None:
    assert iqm([0, 1, 2, 3]) == iqm([-1e9, 1, 2, 1e9]) == 1.5
    assert iqm([0, 1, 2, 4, 3]) != iqm([0, 1, 2.5, 4, 3])


def test_median_is_over_tasks_and_over_the_runs_of_a_single_one() -> None:
    scores = np.array([[0.0, 1.0, 10.0], [2.0, 3.0, 0.0]])
    assert median(scores) == 2.0  # of the tasks' means 1, 2, 5
    assert median([1.0, 5.0, 100.0]) == 5.0
    assert mean(scores) == pytest.approx(8 / 3)


def test_optimality_gap_counts_no_more_than_gamma() -> None:
    assert optimality_gap([0.5, 3.0]) == optimality_gap([0.5, 1.0]) == 0.25
    assert optimality_gap([-200.0, -100.0], gamma=-100.0) == 50.0
    with pytest.raises(ContractError, match=r"needs a finite gamma, got nan\."):
        optimality_gap([1.0], gamma=float("nan"))


@pytest.mark.parametrize("statistic", [iqm, mean, median, optimality_gap])
def test_leading_axes_are_independent(statistic: Any) -> None:
    scores = np.random.default_rng(0).normal(size=(6, 5, 4))
    one_by_one = [statistic(part) for part in scores]
    np.testing.assert_allclose(statistic(scores), one_by_one, atol=1e-12)
    assert all(isinstance(value, float) for value in one_by_one)


@pytest.mark.parametrize("statistic", [iqm, mean, median])
def test_constant_scores_are_their_own_statistic(statistic: Any) -> None:
    scores = np.full((3, 4), 0.25)
    assert statistic(scores) == 0.25 and bootstrap_ci(scores, statistic) == (0.25, 0.25)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    covered, trials = 0, 300
    for trial in range(trials):
        scores = random.normal(5.0, 2.0, size=(40, 1))
        low, high = bootstrap_ci(scores, mean, confidence=0.9, repetitions=400, seed=trial)
        covered += low <= 5.0 <= high
    assert 0.83 < covered / trials < 0.95


def test_interval_has_the_width_of_the_standard_error() -> None:
    scores = np.random.default_rng(1).normal(size=(400, 1))
    low, high = bootstrap_ci(scores, mean, repetitions=4000)
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.06)


def test_bootstrap_is_stratified_by_task() -> None:
    """Tasks of different scale and no spread: resampling across tasks would show a spread."""
    scores = np.tile([0.0, 100.0], (5, 1))
    assert bootstrap_ci(scores, mean) == (50.0, 50.0)


def test_bootstrap_draws_each_task_on_its_own() -> None:
    """Anti-correlated tasks: drawing whole runs would leave the mean exactly 0."""
    run = np.arange(8.0)
    low, high = bootstrap_ci(np.stack([run, -run], 1), mean)
    assert low < -0.5 and high > 0.5


def test_bootstrap_repeats_with_its_seed_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(2).normal(size=(5, 3))
    found = bootstrap_ci(scores, seed=4)
    assert bootstrap_ci(scores, seed=4) == found != bootstrap_ci(scores, seed=5)
    monkeypatch.setattr("worldflux_train.statistics.RESAMPLED_AT_ONCE", 700 * scores.size)
    pieces = bootstrap_ci(scores, seed=4)
    np.testing.assert_allclose(pieces, found, atol=0.1)
    assert bootstrap_ci(scores, seed=4, confidence=0.5)[0] > found[0]


@pytest.mark.parametrize("statistic", [iqm, mean, median, optimality_gap, bootstrap_ci])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(statistic: Any, bad: float) -> None:
    scores = np.zeros((3, 2))
    scores[1, 1] = bad
    text = f"1 of 6 are not, the first is {bad} at (1, 1) of (3, 2)"
    with pytest.raises(ContractError, match=re.escape(text)):
        statistic(scores)


def test_what_has_no_statistic_is_refused() -> None:
    for empty in ([], np.zeros((0, 3)), 1.0):
        with pytest.raises(ContractError, match=r"Scores are \(N,\) or \(\.\.\., N, M\) and not e"):
            mean(empty)
    with pytest.raises(ContractError, match=r"of N >= 2 runs, got \(1, 1\)\. Train more seeds\."):
        bootstrap_ci([3.0])
    with pytest.raises(ConfigError, match=r"repetitions >= 1, got 95 and 2000\."):
        bootstrap_ci([3.0, 4.0], confidence=95)
    with pytest.raises(ContractError, match=r"for R=2000 it returned \(\)\. Reduce the last two"):
        bootstrap_ci([3.0, 4.0], np.mean)

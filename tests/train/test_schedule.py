"""The train ratio in whole numbers, bursts, and phases that begin one after the other."""

from __future__ import annotations

from fractions import Fraction

import pytest

from worldflux.training import Phase, TrainingPlan
from worldflux_train.schedule import BURST, Schedule, crossed


def _plan(**values: object) -> TrainingPlan:
    return TrainingPlan([Phase("one", batch=1, length=1, **values)], prefill=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ratio", "exact"),
    [
        (0.25, Fraction(1, 4)),
        (1 / 3, Fraction(1, 3)),
        (2.5, Fraction(5, 2)),
        (0.1, Fraction(1, 10)),
    ],
)
def test_ratio_is_exact_however_steps_arrive(ratio: float, exact: Fraction) -> None:
    schedule = Schedule(_plan(updates_per_step=ratio))
    steps = 0
    for stride in (1, 3, 7, 2) * 2500:
        schedule.begin(steps, lambda phase: True)
        for phase, count in schedule.due(steps):
            schedule.done[phase.name] += count
        assert schedule.updates == steps * exact // 1
        steps += stride


def test_ratio_counts_from_when_the_replay_can_serve() -> None:
    schedule = Schedule(_plan(updates_per_step=1, start=10))
    schedule.begin(9, lambda phase: True)
    assert schedule.due(9) == []
    schedule.begin(12, lambda phase: False)
    assert schedule.due(12) == []
    schedule.begin(20, lambda phase: True)
    schedule.begin(25, lambda phase: True)  # has begun: nothing changes
    assert [count for _, count in schedule.due(25)] == [5]


def test_bursts_come_in_pieces_and_once() -> None:
    plan = TrainingPlan(
        [
            Phase("burst", batch=1, length=1, updates=BURST + 5, start=8),
            Phase("online", batch=1, length=1, updates_per_step=1, start=8),
        ],
        prefill=10,
    )
    schedule = Schedule(plan)
    assert schedule.until_start(0) == 10  # the prefill moves both starts
    schedule.begin(10, lambda phase: True)
    assert schedule.until_start(10) is None
    pieces = []
    while (burst := schedule.burst()) is not None:
        pieces.append(burst[1])
        schedule.done[burst[0].name] += burst[1]
    assert pieces == [BURST, 5]
    assert [(phase.name, count) for phase, count in schedule.due(13)] == [("online", 3)]


def test_crossed() -> None:
    assert crossed(10, 9, 10)
    assert crossed(10, 19, 41)
    assert not crossed(10, 10, 19)
    assert not crossed(0, 0, 100)

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
            Phase("burst", batch=1, length=1, updates=BURST + 5, start=10),
            Phase("online", batch=1, length=1, updates_per_step=1, start=10),
        ],
        prefill=12,  # delays nothing
    )
    schedule = Schedule(plan)
    assert schedule.until_change(0) == 10
    schedule.begin(10, lambda phase: True)
    assert schedule.until_change(10) is None
    pieces = []
    while (burst := schedule.burst()) is not None:
        pieces.append(burst[1])
        schedule.done[burst[0].name] += burst[1]
    assert pieces == [BURST, 5]
    assert [(phase.name, count) for phase, count in schedule.due(13)] == [("online", 3)]


def test_a_phase_with_both_has_its_burst_and_then_its_ratio_until_its_end() -> None:
    schedule = Schedule(_plan(updates=3, updates_per_step=0.5, start=10, end=20))
    assert [schedule.until_change(step) for step in (0, 10, 20)] == [10, 10, None]
    schedule.begin(10, lambda phase: True)
    assert schedule.bursts_left(100) == 3
    assert schedule.burst() == (schedule.plan.phases[0], 3)
    schedule.done["one"] = 3
    assert (schedule.burst(), schedule.bursts_left(100)) == (None, 0)
    assert [schedule.due(step)[0][1] for step in (14, 20, 40)] == [2, 5, 5]


def test_phases_that_do_nothing_are_found() -> None:
    late = Schedule(_plan(updates_per_step=1, start=10))
    assert [late.too_late(steps) != [] for steps in (9, 10, 11)] == [True, True, False]
    last = Schedule(_plan(updates=1, start=10))  # a burst may begin at the very end
    assert [last.too_late(steps) != [] for steps in (9, 10)] == [True, False]
    ends = Schedule(_plan(updates=1, start=5, end=10))
    assert [ends.missed(step) != [] for step in (5, 9, 10)] == [False, False, True]
    ends.begin(10, lambda phase: True)  # too late
    assert ends.burst() is None
    assert late.missed(50) == [] and late.missed(50, over=True) == list(late.plan.phases)
    assert late.missed(9, over=True) == []  # that one was too late from the beginning
    late.begin(10, lambda phase: True)
    assert late.missed(50, over=True) == late.too_late(5) == []


def test_collection_may_end() -> None:
    phase = Phase("one", batch=1, length=1, updates_per_step=1)
    for until, collects in (
        (None, [True, True, True]),
        (0, [False] * 3),
        (5, [True, False, False]),
    ):
        schedule = Schedule(TrainingPlan([phase], collect_until=until))
        assert [schedule.collects(step) for step in (0, 5, 9)] == collects
    assert schedule.until_change(2) == 3


def test_crossed() -> None:
    assert crossed(10, 9, 10)
    assert crossed(10, 19, 41)
    assert not crossed(10, 10, 19)
    assert not crossed(0, 0, 100)


@pytest.mark.parametrize("ready_at", [0, 33])
def test_the_steps_of_an_optimizer_are_known_beforehand(ready_at: int) -> None:
    """Once all its phases have begun, exactly; until then as if they began at their start."""
    plan = TrainingPlan(
        [
            Phase("burst", batch=1, length=1, updates=7, trains=("a",)),
            Phase("both", batch=1, length=1, updates_per_step=1 / 3, start=20, end=70),
            Phase("late", batch=1, length=1, updates_per_step=2, start=60, trains=("b",)),
            Phase("never", batch=1, length=1, updates=5, start=101, trains=("b",)),
        ]
    )
    schedule, told = Schedule(plan), {}
    assert schedule.steps_of("a", 100) == 7 + 50 // 3
    for step in range(101):
        schedule.begin(step, lambda phase, now=step: now >= ready_at)
        if step in (0, 40):
            told[step] = {name: schedule.steps_of(name, 100) for name in "ab"}
        for phase, count in schedule.due(step):
            schedule.done[phase.name] += count
    took = {
        name: sum(schedule.done[p.name] for p in plan.phases if name in (p.trains or "ab"))
        for name in "ab"
    }
    assert told[40] == took == {name: schedule.steps_of(name, 100) for name in "ab"}
    assert (told[0] == took) == (ready_at == 0)

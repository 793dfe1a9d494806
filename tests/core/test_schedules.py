"""Schedules against slow references; what they scale, count and refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from worldflux.core.agent import Learner
from worldflux.core.schedules import Schedule
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec
from worldflux.testing.dummies import TinyConfig, TinyModel
from worldflux.training import Phase, TrainingPlan

OBS, ACTION = {"state": TensorSpec((5,))}, {"action": TensorSpec((2,), low=-1.0, high=1.0)}


class Scheduled(Learner):
    """One weight whose gradient is 1, so that it moves by the rate of each step."""

    def __init__(self, schedules: dict[str, Schedule], groups: tuple[float, ...] = (0.5,)) -> None:
        super().__init__(TinyConfig(), OBS, ACTION)
        self.world_model = TinyModel(TinyConfig(), OBS, ACTION)
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in groups)
        built = [
            {"params": [weight], "lr": rate, "weight_decay": 0.0}
            for weight, rate in zip(self.weights, groups, strict=True)
        ]
        self.optimizers = {"net": torch.optim.SGD(built, lr=1.0)}
        self.schedules = schedules

    def training_plan(self) -> TrainingPlan:
        return TrainingPlan([Phase("all", 2, 4, updates_per_step=1)])

    def moves(self, steps: int) -> list[list[float]]:
        """How far each weight falls in each step, (steps, groups)."""
        found = []
        for _ in range(steps):
            before = [float(weight.detach()) for weight in self.weights]
            self.step("net", lambda batch, rand: (sum(self.weights), {}), {})  # type: ignore[arg-type,return-value]
            found.append([b - float(w.detach()) for b, w in zip(before, self.weights, strict=True)])
        return found


def straight(step: int, total: int) -> float:
    """From 0.1 up to 1.0 in 4 steps, then down to 0.2 in a straight line."""
    rising = [0.1 + 0.9 * i / 4 for i in range(4)]
    falling = [1.0 - 0.8 * i / (total - 4) for i in range(total - 4)]
    return [*rising, *falling, 0.2, 0.2, 0.2][step]


def half_a_cosine(step: int, total: int) -> float:
    """From 1.0 to 0.2 along the cosine from 0 to pi."""
    return 0.2 + 0.8 * (1 + math.cos(math.pi * min(step, total) / total)) / 2


def warm_stable_down(step: int, total: int) -> float:
    """From 0 up to 1.0 in 2 steps, there until 3 are left, then down to 0.1 in a straight line."""
    if step < 2:
        return step / 2
    return 1.0 if step < 7 else max(0.1, 1.0 - 0.9 * (step - 7) / 3)


def a_step(step: int, total: int) -> float:
    return 1.0 if step < 7 else 0.2


REFERENCES: list[tuple[Schedule, Callable[[int, int], float]]] = [
    (Schedule("linear", start=0.1, peak=1.0, end=0.2, warmup=4), straight),
    (Schedule("linear", start=0.1, peak=1.0, end=0.2, warmup=0.4), straight),
    (Schedule("cosine", start=1.0, end=0.2), half_a_cosine),
    (Schedule("cosine", start=0.0, peak=1.0, end=0.2), half_a_cosine),  # no warm-up, no start
    (Schedule("linear", peak=1.0, end=0.1, warmup=2, decay=3), warm_stable_down),
    (Schedule("linear", peak=1.0, end=0.1, warmup=2, decay=0.3), warm_stable_down),
    (Schedule("step", start=1.0, end=0.2, at=7), a_step),
    (Schedule("step", start=1.0, end=0.2, at=0.7), a_step),
    (Schedule("constant", start=0.0, peak=1.0, warmup=2), lambda k, n: [0.0, 0.5, 1.0][min(k, 2)]),
    (Schedule("cosine", start=0.2, end=1.0), lambda k, n: 1.2 - half_a_cosine(k, n)),
]


@pytest.mark.parametrize("schedule,reference", REFERENCES, ids=lambda x: getattr(x, "kind", ""))
def test_values_are_those_of_a_slow_reference(
    schedule: Schedule, reference: Callable[[int, int], float]
) -> None:
    found = [schedule.value(step, 10) for step in range(13)]
    assert found == pytest.approx([reference(step, 10) for step in range(13)])


def test_each_groups_own_rate_is_scaled() -> None:
    schedule = Schedule("linear", start=0.0, peak=4.0, end=0.0, warmup=2)  # its unit is no matter
    learner = Scheduled({"net.lr": schedule}, groups=(0.5, 0.1))
    learner.total["net"] = 6
    shares = [0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0]
    for moved, share in zip(learner.moves(8), shares, strict=True):
        assert moved == pytest.approx([0.5 * share, 0.1 * share], abs=1e-6)


def test_weight_decay_and_a_rate_held_in_a_tensor() -> None:
    learner = Scheduled({"net.weight_decay": Schedule("cosine", start=0.04, end=0.4)})
    group = learner.optimizers["net"].param_groups[0]
    group["weight_decay"], learner.total["net"] = 0.4, 2
    held = group["lr"] = torch.tensor(0.5)
    learner.schedules["net.lr"] = Schedule("step", start=1.0, end=0.5, at=1)
    seen = []
    for _ in range(3):
        learner.moves(1)
        seen.append(group["weight_decay"])
    assert seen == pytest.approx([0.04, 0.22, 0.4])
    assert group["lr"] is held and float(held) == 0.25


def test_a_schedule_of_ones_own_is_read() -> None:
    learner = Scheduled({"momentum": Schedule("linear", start=0.996, end=1.0)})
    learner.total["net"] = 4
    found = []
    for _ in range(5):
        found.append(learner.scheduled("momentum"))
        learner.moves(1)
    assert found == pytest.approx([0.996, 0.997, 0.998, 0.999, 1.0])
    learner.optimizers["other"] = learner.optimizers["net"]
    with pytest.raises(ContractError, match="'momentum' goes by the steps of no optimizer"):
        learner.scheduled("momentum")
    with pytest.raises(ContractError, match="no schedule 'momentun'. Did you mean 'momentum'"):
        learner.scheduled("momentun")


def test_a_resumed_learner_goes_on_with_the_same_rates() -> None:
    schedules = {"net.lr": Schedule("cosine", start=0.0, peak=1.0, end=0.1, warmup=0.3)}
    whole, first, second = (Scheduled(schedules, (0.5, 0.1)) for _ in range(3))
    whole.total["net"] = first.total["net"] = second.total["net"] = 9
    moved = whole.moves(9)
    assert first.moves(5) == moved[:5]
    second.load_state_dict(first.state_dict())
    second.moves(2)  # what it did before does not matter
    second.load_state_dict(first.state_dict())
    second.load_training_state(first.training_state())
    assert second.steps == {"net": 5} and second.total == {"net": 9}
    assert second.moves(4) == moved[5:]


def test_a_run_of_unknown_length_has_no_end() -> None:
    learner = Scheduled({"net.lr": Schedule("cosine", peak=1.0)})
    with pytest.raises(ContractError, match=r"set learner.total\['net'\]"):
        learner.moves(1)
    learner.schedules = {"net.lr": Schedule("constant", peak=1.0, warmup=2)}
    assert learner.moves(3) == [[0.0], [0.25], [0.5]]


def test_a_rate_that_the_optimizer_has_not_is_refused() -> None:
    learner = Scheduled({"net.weight_decay": Schedule(start=1.0)})
    group = learner.optimizers["net"].param_groups[0]
    del group["weight_decay"]
    with pytest.raises(ContractError, match="for 'weight_decay', which SGD has not"):
        learner.moves(1)


WRONG = {
    "kind is 'cosin'. Did you mean 'cosine'": {"kind": "cosin", "start": 1.0},
    "start is a number of at least 0, got -1": {"start": -1.0},
    "needs the peak": {"start": 1.0, "warmup": 3},
    "moment of kind 'step'": {"start": 1.0, "at": 3},
    "is 0 throughout": {"end": 1.0},
    "warmup is a count of steps": {"peak": 1.0, "warmup": 1.5},
    "at is a count of steps": {"kind": "step", "peak": 1.0, "at": -1},
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ContractError, match=text):
        Schedule(**WRONG[text])  # type: ignore[arg-type]


def test_a_way_down_belongs_to_what_goes_down() -> None:
    with pytest.raises(ContractError, match="no way down that decay=3 could shorten"):
        Schedule("constant", peak=1.0, decay=3)


def test_exponential_and_several_steps_go_by_the_same_ratio() -> None:
    falling = Schedule("exponential", peak=1.0, end=0.01, warmup=2)
    values = [falling.value(step, 12) for step in range(2, 13)]
    ratios = [b / a for a, b in pairwise(values)]
    assert ratios == pytest.approx([0.01**0.1] * 10) and values[-1] == 0.01
    stairs = Schedule("step", peak=1.0, end=0.01, at=(3, 0.5))
    assert [round(stairs.value(step, 12), 6) for step in (0, 2, 3, 5, 6, 12)] == [
        1.0, 1.0, 0.1, 0.1, 0.01, 0.01,
    ]  # fmt: skip
    assert stairs.needs_total and not Schedule("step", peak=1.0, at=(3, 5), end=0.1).needs_total
    with pytest.raises(ContractError, match=r"by ratios never comes from 1\.0 to 0\.0: both have"):
        Schedule("exponential", peak=1.0)
    with pytest.raises(ContractError, match="at is a count of steps"):
        Schedule("step", peak=1.0, end=0.1, at=(3, -1))


def test_factors_multiply_rates_with_and_without_a_schedule() -> None:
    learner = Scheduled({})
    learner.factors["net.lr"] = 0.5
    assert learner.moves(2) == [[0.25], [0.25]]
    learner.schedules["net.lr"] = Schedule("step", start=1.0, end=0.1, at=3)
    assert [round(move[0], 6) for move in learner.moves(2)] == [0.25, 0.025]

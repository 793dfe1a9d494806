"""Values that change over a run, as data: learning rates, weight decay, momenta of averages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from worldflux.errors import ContractError, did_you_mean

if TYPE_CHECKING:
    from worldflux.core.agent import Learner

Kind = Literal["constant", "linear", "cosine", "exponential", "step"]
KINDS = get_args(Kind)
WAYS = ("linear", "cosine", "exponential")
"""Kinds that take all steps for their way down."""
RATES = ("lr", "weight_decay")
"""What a schedule named `<optimizer>.<rate>` scales in the optimiser's groups."""


@dataclass(frozen=True)
class Schedule:
    """A value over the steps of an optimiser.

    It rises (or falls) from `start` to `peak` in a straight line over `warmup` steps, and goes
    from there to `end`, which it has after the last step: not at all ("constant"), in a straight
    line ("linear"), along half a cosine ("cosine"), by the same ratio in every step
    ("exponential"), or at once, `at` a moment ("step"; at several moments, by the same ratio at
    each). Without a `peak` there is no warm-up: the value goes from `start` to `end`. With a
    `decay` the way down takes that many steps, the last ones, and the value stays before (warm-up,
    stable, decay). `warmup`, `at` and `decay` are counts of steps (int) or shares of them all
    (float in [0, 1]).
    """

    kind: Kind = "constant"
    start: float = 0.0
    peak: float | None = None
    end: float = 0.0
    warmup: int | float = 0
    at: int | float | tuple[int | float, ...] | None = None
    decay: int | float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ContractError(
                f"A Schedule's kind is {self.kind!r}.{did_you_mean(str(self.kind), KINDS)} "
                f"Choose {', '.join(KINDS)}."
            )
        for name in ("start", "peak", "end"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ContractError(f"A Schedule's {name} is a number of at least 0, got {value}.")
        if self.peak is None and self.warmup:
            raise ContractError(
                f"A Schedule with warmup={self.warmup} needs the peak that it warms up to."
            )
        if (self.kind == "step") != (self.at is not None):
            raise ContractError(
                f"`at` is the moment of kind 'step', got at={self.at} with kind {self.kind!r}."
            )
        if self.decay is not None and self.kind not in WAYS:
            raise ContractError(
                f"A Schedule of kind {self.kind!r} has no way down that decay={self.decay} could "
                f"shorten: leave it out, or choose {', '.join(WAYS)}."
            )
        if self._by_ratio and min(self.end, self.top) <= 0:
            raise ContractError(
                f"A Schedule that goes down by ratios never comes from {self.top} to {self.end}: "
                "both have to be above 0."
            )
        for name in ("warmup", "decay"):
            self._check_moment(name, getattr(self, name))
        for moment in self.moments:
            self._check_moment("at", moment)
        if self.largest == 0:
            raise ContractError("A Schedule that is 0 throughout scales nothing: give it a peak.")

    @property
    def largest(self) -> float:
        """The largest of the values that it takes."""
        values = [self.top]
        values += [self.start] if self.warmup else []
        values += [self.end] if self.kind != "constant" else []
        return max(values)

    @property
    def top(self) -> float:
        """The value when the warm-up is over."""
        return self.start if self.peak is None else self.peak

    @property
    def needs_total(self) -> bool:
        """Whether the value depends on how many steps there will be."""
        shares = any(isinstance(moment, float) for moment in (self.warmup, *self.moments))
        return shares or self.kind in WAYS

    @property
    def moments(self) -> tuple[int | float, ...]:
        """When a "step" happens; empty for other kinds."""
        if self.at is None:
            return ()
        return self.at if isinstance(self.at, tuple) else (self.at,)

    @property
    def _by_ratio(self) -> bool:
        return self.kind == "exponential" or len(self.moments) > 1

    def value(self, step: int, total: int | None = None) -> float:
        """The value after `step` of `total` steps, which a schedule by counts does without."""
        warmup = _count(self.warmup, total)
        if step < warmup:
            return self.start + (self.top - self.start) * step / warmup
        if self.kind == "constant":
            return self.top
        if self.kind == "step":
            passed = sum(step >= _count(moment, total) for moment in self.moments)
            return self._between(passed / len(self.moments))
        assert total is not None, self.kind
        begun = warmup if self.decay is None else max(warmup, total - _count(self.decay, total))
        done = min(1.0, max(0.0, step - begun) / max(total - begun, 1))
        return self._between((1 - math.cos(math.pi * done)) / 2 if self.kind == "cosine" else done)

    def _between(self, done: float) -> float:
        """The value when the share `done` of the way down is behind it."""
        if done >= 1:
            return self.end
        if self._by_ratio:
            return self.top * (self.end / self.top) ** done
        return self.top + (self.end - self.top) * done

    def _check_moment(self, name: str, value: int | float | None) -> None:
        if value is None or (isinstance(value, int) and value >= 0) or 0 <= value <= 1:
            return
        raise ContractError(
            f"A Schedule's {name} is a count of steps (an int of at least 0) or a share of them "
            f"(a float in [0, 1]), got {value!r}."
        )


def _count(moment: int | float, total: int | None) -> float:
    if isinstance(moment, int):
        return moment
    assert total is not None, moment
    return moment * total


class Rates:
    """The rates an optimiser was built with, by group: what its schedules scale."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.base = [
            {key: float(group[key]) for key in RATES if key in group}
            for group in optimizer.param_groups
        ]

    def scale(self, optimizer: torch.optim.Optimizer, shares: Mapping[str, float]) -> None:
        """Set `rate = base * share` in every group, for the rates among `shares`."""
        for group, base in zip(optimizer.param_groups, self.base, strict=True):
            for key, share in shares.items():
                if key not in base:
                    raise ContractError(
                        f"A schedule is for {key!r}, which {type(optimizer).__name__} has not."
                    )
                rate = base[key] * share
                held = isinstance(group[key], torch.Tensor)  # compiled optimisers read it there
                group[key] = group[key].fill_(rate) if held else rate


def value_now(learner: Learner, name: str) -> float:
    """`Learner.scheduled`: the value of the schedule `name` after the steps so far."""
    if name not in learner.schedules:
        known = ", ".join(learner.schedules) or "none"
        raise ContractError(
            f"{type(learner).__name__} has no schedule {name!r}."
            f"{did_you_mean(name, learner.schedules)} Schedules: {known}."
        )
    optimizer = name.rpartition(".")[0] or next(iter(learner.optimizers), "")
    if optimizer not in learner.optimizers or ("." not in name and len(learner.optimizers) > 1):
        raise ContractError(
            f"Schedule {name!r} goes by the steps of no optimizer: call it "
            f"<optimizer>.<name>. Optimizers: {', '.join(learner.optimizers) or 'none'}."
        )
    total = learner.total.get(optimizer)
    if total is None and learner.schedules[name].needs_total:
        raise ContractError(
            f"Schedule {name!r} depends on how many steps {optimizer!r} will take: outside of "
            f"`worldflux train`, set learner.total[{optimizer!r}]."
        )
    return learner.schedules[name].value(learner.steps.get(optimizer, 0), total)


def set_rates(learner: Learner, name: str, rates: dict[str, Rates]) -> None:
    """Scale the rates of optimiser `name`; `rates` remember what each was built with."""
    shares = {}
    for rate in RATES:
        full, share = f"{name}.{rate}", 1.0
        if full in learner.schedules:
            share = value_now(learner, full) / learner.schedules[full].largest
        if full in learner.schedules or full in learner.factors:
            shares[rate] = share * learner.factors.get(full, 1.0)
    if shares:
        optimizer = learner.optimizers[name]
        rates.setdefault(name, Rates(optimizer)).scale(optimizer, shares)

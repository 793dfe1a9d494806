"""Values that change over a run, as data: learning rates, weight decay, momenta of averages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from worldflux.errors import ContractError, did_you_mean

if TYPE_CHECKING:
    from worldflux.core.agent import Learner

Kind = Literal["constant", "linear", "cosine", "step"]
KINDS = ("constant", "linear", "cosine", "step")
RATES = ("lr", "weight_decay")
"""What a schedule named `<optimizer>.<rate>` scales in the optimiser's groups."""


@dataclass(frozen=True)
class Schedule:
    """A value over the steps of an optimiser.

    It rises (or falls) from `start` to `peak` in a straight line over `warmup` steps, and goes
    from there to `end`, which it has after the last step: not at all ("constant"), in a straight
    line ("linear"), along half a cosine ("cosine"), or at once, `at` a moment ("step"). Without a
    `peak` there is no warm-up: the value goes from `start` to `end`. With a `decay` the way down
    takes that many steps, the last ones, and the value stays before (warm-up, stable, decay).
    `warmup`, `at` and `decay` are counts of steps (int) or shares of them all (float in [0, 1]).
    """

    kind: Kind = "constant"
    start: float = 0.0
    peak: float | None = None
    end: float = 0.0
    warmup: int | float = 0
    at: int | float | None = None
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
        if self.decay is not None and self.kind not in ("linear", "cosine"):
            raise ContractError(
                f"A Schedule of kind {self.kind!r} has no way down that decay={self.decay} could "
                "shorten: leave it out, or choose linear or cosine."
            )
        for name in ("warmup", "at", "decay"):
            self._check_moment(name, getattr(self, name))
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
        shares = isinstance(self.warmup, float) or isinstance(self.at, float)
        return shares or self.kind in ("linear", "cosine")

    def value(self, step: int, total: int | None = None) -> float:
        """The value after `step` of `total` steps, which a schedule by counts does without."""
        warmup = _count(self.warmup, total)
        if step < warmup:
            return self.start + (self.top - self.start) * step / warmup
        if self.kind == "constant":
            return self.top
        if self.at is not None:
            return self.top if step < _count(self.at, total) else self.end
        assert total is not None, self.kind
        begun = warmup if self.decay is None else max(warmup, total - _count(self.decay, total))
        done = min(1.0, max(0.0, step - begun) / max(total - begun, 1))
        if self.kind == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
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
    names = {rate: f"{name}.{rate}" for rate in RATES}
    shares = {
        rate: value_now(learner, full) / learner.schedules[full].largest
        for rate, full in names.items()
        if full in learner.schedules
    }
    if shares:
        optimizer = learner.optimizers[name]
        rates.setdefault(name, Rates(optimizer)).scale(optimizer, shares)

"""Schedules as the published run steps them: stretched beyond its end, and ahead by one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from worldflux.core.schedules import Schedule


@dataclass(frozen=True)
class Stretched(Schedule):
    """A schedule of a run `stretch` times as long, of which only the beginning is used.

    A share of warm-up is one of the run itself. `ahead` steps it before each update, so that the
    first update has the value after one step (`src/utils/schedulers.py`).
    """

    stretch: float = 1.25
    ahead: int = 0

    @property
    def needs_total(self) -> bool:
        return True

    def value(self, step: int, total: int | None = None) -> float:
        """The value of update number `step` (from 0) of `total`."""
        assert total is not None, self.kind
        step, whole = step + self.ahead, self.stretch * total
        if self.kind == "linear":
            return self.start + step * (self.end - self.start) / whole
        warmup = int(self.warmup * total)
        if step < warmup:
            return self.start + (self.top - self.start) * step / warmup
        done = (step - warmup) / max(1, int(whole) - warmup)
        found = self.end + (self.top - self.end) * 0.5 * (1 + math.cos(math.pi * done))
        return max(found, self.end) if self.end <= self.top else min(found, self.end)


class Rates(Protocol):
    """The numbers of a learner's configuration that its schedules are made of."""

    @property
    def start_lr(self) -> float: ...
    @property
    def lr(self) -> float: ...
    @property
    def final_lr(self) -> float: ...
    @property
    def warmup(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def final_weight_decay(self) -> float: ...
    @property
    def momentum(self) -> tuple[float, float]: ...
    @property
    def stretch(self) -> float: ...


def encoder_schedules(optimizer: str, own: Rates) -> dict[str, Schedule]:
    """Learning rate, weight decay and the slow target's "momentum", over steps of `optimizer`."""
    first, last = own.momentum
    return {
        f"{optimizer}.lr": Stretched(
            "cosine", own.start_lr, own.lr, own.final_lr, own.warmup, stretch=own.stretch, ahead=1
        ),
        f"{optimizer}.weight_decay": Stretched(
            "cosine", own.weight_decay, end=own.final_weight_decay, stretch=own.stretch, ahead=1
        ),
        "momentum": Stretched("linear", first, end=last, stretch=own.stretch),
    }

"""How a family wants to be trained, as data. This module imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from worldflux.errors import ContractError

Boundary = Literal["cross", "within", "pad"]


@dataclass(frozen=True)
class Phase:
    """One kind of update and when it happens.

    A phase lives from step `start` until before step `end` (None: to the run's end) of the run's
    clock. `updates` are a burst, done when it begins, while the clock stands still; after them
    come `updates_per_step` updates for each step. It may have either or both; one with neither
    does no updates. Each update samples `batch` sequences of `context + length` steps; the first
    `context` steps only carry state in. `boundary` says what a sequence may contain: `cross`
    (episode boundaries inside, marked by `is_first`), `within` (one episode only) or `pad` (one
    episode, padded at its end, `mask` tells).
    """

    name: str
    batch: int
    length: int
    updates_per_step: float | None = None
    updates: int | None = None
    start: int = 0
    end: int | None = None
    boundary: Boundary = "cross"
    context: int = 0

    def __post_init__(self) -> None:
        if (self.updates_per_step or 0) < 0 or (self.updates or 0) < 0:
            raise ContractError(
                f"Phase {self.name!r}: updates_per_step and updates cannot be negative, got "
                f"updates_per_step={self.updates_per_step} and updates={self.updates}."
            )
        if self.end is not None and self.end <= self.start:
            raise ContractError(
                f"Phase {self.name!r} ends at step {self.end}, but starts at step {self.start}: it "
                "would never live."
            )
        if self.batch < 1 or self.length < 1 or self.context < 0 or self.start < 0:
            raise ContractError(
                f"Phase {self.name!r}: batch and length must be at least 1, context and start at "
                f"least 0; got batch={self.batch} length={self.length} context={self.context} "
                f"start={self.start}."
            )
        if self.boundary not in ("cross", "within", "pad"):
            raise ContractError(
                f"Phase {self.name!r}: boundary must be cross, within or pad, got "
                f"{self.boundary!r}."
            )


@dataclass(frozen=True)
class TrainingPlan:
    """The phases of a family's training, and `prefill` steps of random actions before them.

    From step `collect_until` on no more is collected (0: never, the run is on data alone; None:
    the run collects to its end). At least one phase has updates.
    """

    phases: Sequence[Phase]
    prefill: int = 0
    collect_until: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        names = [phase.name for phase in self.phases]
        if not names or len(set(names)) != len(names):
            raise ContractError(f"A TrainingPlan needs phases with distinct names, got {names}.")
        if not any(phase.updates or phase.updates_per_step for phase in self.phases):
            raise ContractError(
                f"No phase of this TrainingPlan has updates ({', '.join(names)}): give one of them "
                "updates_per_step (a ratio) or updates (a burst)."
            )
        if self.collect_until is not None and self.collect_until < 0:
            raise ContractError(f"collect_until is {self.collect_until}: it cannot be negative.")

    def phase(self, name: str) -> Phase:
        """The phase called `name`."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        known = ", ".join(phase.name for phase in self.phases)
        raise ContractError(f"This training plan has no phase {name!r}. Phases: {known}.")

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

    Exactly one of `updates_per_step` (gradient updates per agent step, from `start` on) and
    `updates` (a burst done once, when `start` is reached) is set. `start` counts agent steps
    over all environments. Each update samples `batch` sequences of `context + length` steps;
    the first `context` steps only carry state in. `boundary` says what a sequence may contain:
    `cross` (episode boundaries inside, marked by `is_first`), `within` (one episode only) or
    `pad` (one episode, padded at its end, `mask` tells).
    """

    name: str
    batch: int
    length: int
    updates_per_step: float | None = None
    updates: int | None = None
    start: int = 0
    boundary: Boundary = "cross"
    context: int = 0

    def __post_init__(self) -> None:
        if (self.updates_per_step is None) == (self.updates is None):
            raise ContractError(
                f"Phase {self.name!r} needs exactly one of updates_per_step and updates, got "
                f"updates_per_step={self.updates_per_step} and updates={self.updates}."
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
    """The phases of a family's training, and `prefill` steps of random actions before them."""

    phases: Sequence[Phase]
    prefill: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        names = [phase.name for phase in self.phases]
        if not names or len(set(names)) != len(names):
            raise ContractError(f"A TrainingPlan needs phases with distinct names, got {names}.")

    def phase(self, name: str) -> Phase:
        """The phase called `name`."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        known = ", ".join(phase.name for phase in self.phases)
        raise ContractError(f"This training plan has no phase {name!r}. Phases: {known}.")

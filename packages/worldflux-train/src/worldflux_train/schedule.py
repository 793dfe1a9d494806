"""When updates are due: a training plan's ratios counted in whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from worldflux.training import Phase, TrainingPlan

BURST = 32
"""Most updates of a burst between two points where a run may stop."""


class Schedule:
    """Counts updates per phase; `due` tells how many are owed at a step.

    A phase begins at its `start` (and not before the prefill is over); if the replay cannot serve
    it yet, when it can. From then on floor(steps since * updates_per_step) updates are due, with
    the ratio as an exact fraction.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        self.begun: dict[str, int] = {}
        self.done: dict[str, int] = {phase.name: 0 for phase in plan.phases}

    @property
    def updates(self) -> int:
        """Updates done in all phases."""
        return sum(self.done.values())

    def begin(self, steps: int, ready: Callable[[Phase], bool]) -> None:
        """Begin the phases whose time has come at `steps`."""
        for phase in self.plan.phases:
            if phase.name not in self.begun and steps >= self._start(phase) and ready(phase):
                self.begun[phase.name] = steps

    def until_start(self, steps: int) -> int | None:
        """Agent steps to the next phase's start, which a round should not run past."""
        ahead = [self._start(phase) - steps for phase in self.plan.phases]
        return min((left for left in ahead if left > 0), default=None)

    def due(self, steps: int) -> list[tuple[Phase, int]]:
        """Phases with the number of updates they are owed at `steps`, in the plan's order."""
        owed = []
        for phase in self.plan.phases:
            if phase.name in self.begun:
                count = self._target(phase, steps) - self.done[phase.name]
                if count > 0:
                    owed.append((phase, count))
        return owed

    def burst(self) -> tuple[Phase, int] | None:
        """A piece of the first burst that is owed: it is done before collection goes on."""
        for phase in self.plan.phases:
            if phase.updates is not None and phase.name in self.begun:
                left = phase.updates - self.done[phase.name]
                if left > 0:
                    return phase, min(left, BURST)
        return None

    def _start(self, phase: Phase) -> int:
        return max(phase.start, self.plan.prefill)

    def _target(self, phase: Phase, steps: int) -> int:
        ratio = Fraction(phase.updates_per_step or 0).limit_denominator(1_000_000)
        online = (steps - self.begun[phase.name]) * ratio.numerator // ratio.denominator
        return (phase.updates or 0) + online


def crossed(every: int, before: int, after: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]; never for 0."""
    return every > 0 and after // every > before // every

"""When updates are due: a training plan's bursts and ratios counted in whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from worldflux.atomic import read_json, write_json
from worldflux.training import Phase, TrainingPlan

BURST = 32
"""Most updates of a burst between two points where a run may stop."""
FILE = "schedule.json"


class Schedule:
    """Counts updates per phase; `due` tells how many are owed at a step of the clock.

    A phase begins at its `start`; if the source cannot serve it yet, when it can, but not at its
    `end` or later. First its burst is owed; of its ratio
    floor(steps since it began * updates_per_step) updates, with the ratio as an exact fraction.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        self.begun: dict[str, int] = {}
        self.done: dict[str, int] = {phase.name: 0 for phase in plan.phases}

    @property
    def updates(self) -> int:
        """Updates done in all phases."""
        return sum(self.done.values())

    def training(self) -> list[Phase]:
        """The phases that have updates."""
        return [phase for phase in self.plan.phases if phase.updates or phase.updates_per_step]

    def begin(self, step: int, ready: Callable[[Phase], bool]) -> None:
        """Begin the phases whose time has come at `step`."""
        for phase in self.plan.phases:
            lives = phase.start <= step and (phase.end is None or step < phase.end)
            if phase.name not in self.begun and lives and ready(phase):
                self.begun[phase.name] = step

    def burst(self) -> tuple[Phase, int] | None:
        """A piece of the first burst that is owed: it is done before the clock goes on."""
        for phase in self.plan.phases:
            if phase.name in self.begun:
                left = (phase.updates or 0) - self.done[phase.name]
                if left > 0:
                    return phase, min(left, BURST)
        return None

    def due(self, step: int) -> list[tuple[Phase, int]]:
        """Phases with the number of updates they are owed at `step`, in the plan's order."""
        owed = []
        for phase in self.plan.phases:
            if phase.name in self.begun:
                count = self._target(phase, step) - self.done[phase.name]
                if count > 0:
                    owed.append((phase, count))
        return owed

    def collects(self, step: int) -> bool:
        """Whether the plan collects at `step`."""
        until = self.plan.collect_until
        return until is None or step < until

    def until_change(self, step: int) -> int | None:
        """Steps until a phase starts or ends, or collection does: a round ends there."""
        marks = [phase.start for phase in self.plan.phases]
        marks += [phase.end for phase in self.plan.phases if phase.end is not None]
        marks += [] if self.plan.collect_until is None else [self.plan.collect_until]
        return min((mark - step for mark in marks if mark > step), default=None)

    def too_late(self, steps: int) -> list[Phase]:
        """Phases that can do no update in a run of `steps` steps, whatever is collected.

        One with a burst may still begin at the very end.
        """
        return [
            phase
            for phase in self.training()
            if phase.name not in self.begun
            and (phase.start > steps or (phase.start == steps and not phase.updates))
        ]

    def missed(self, step: int, *, over: bool = False) -> list[Phase]:
        """Phases that ended before `step` without having begun; all if the run is `over`."""
        return [
            phase
            for phase in self.training()
            if phase.name not in self.begun
            and ((phase.end is not None and phase.end <= step) or (over and phase.start <= step))
        ]

    def bursts_left(self, steps: int) -> int:
        """Updates that bursts still take in a run of `steps` steps."""
        phases = [phase for phase in self.plan.phases if phase.start <= steps]
        return sum(max(0, (phase.updates or 0) - self.done[phase.name]) for phase in phases)

    def total(self, phase: Phase, steps: int) -> int:
        """Updates of `phase` in a whole run of `steps` steps.

        A phase that has not begun yet is taken to begin at its start.
        """
        begun = self.begun.get(phase.name, phase.start)
        if begun > steps:
            return self.done[phase.name]
        return self._target(phase, steps)

    def steps_of(self, optimizer: str, steps: int) -> int:
        """Updates, in a whole run of `steps` steps, of the phases that train `optimizer`."""
        phases = [phase for phase in self.plan.phases if optimizer in (phase.trains or [optimizer])]
        return sum(self.total(phase, steps) for phase in phases)

    def save(self, folder: Path) -> None:
        """Write the counters."""
        write_json(folder / FILE, {"begun": self.begun, "done": self.done})

    def load(self, folder: Path) -> None:
        """Take over the saved counters."""
        saved = read_json(folder / FILE)
        self.begun, self.done = dict(saved["begun"]), dict(saved["done"])

    def _target(self, phase: Phase, step: int) -> int:
        ratio = Fraction(phase.updates_per_step or 0).limit_denominator(1_000_000)
        begun = self.begun.get(phase.name, phase.start)
        lived = (step if phase.end is None else min(step, phase.end)) - begun
        return (phase.updates or 0) + lived * ratio.numerator // ratio.denominator


def crossed(every: int, before: int, after: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]; never for 0."""
    return every > 0 and after // every > before // every

"""What a run says of phases that do nothing in it."""

from __future__ import annotations

import logging

from worldflux_train.schedule import Schedule

logger = logging.getLogger(__name__)


def warn_of_late_phases(schedule: Schedule, steps: int) -> None:
    """Before a run of `steps` steps: name the phases that cannot begin in it."""
    late = schedule.too_late(steps)
    for phase in late:
        logger.warning(
            "Phase %r begins at step %s, but the run ends at train.steps=%s: it will do no update. "
            "Raise train.steps (--steps) to train it.",
            phase.name, f"{phase.start:,}", f"{steps:,}",
        )  # fmt: skip
    if len(late) == len(schedule.training()) and not schedule.updates:
        logger.warning("This run will do no updates at all: nothing will be learned.")


class MissedPhases:
    """Names, once each, the phases that were over before they could begin."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._named: set[str] = set()

    def warn(self, step: int, *, over: bool = False) -> None:
        """At `step` of the clock, or at the end of the run."""
        for phase in self.schedule.missed(step, over=over):
            if phase.name not in self._named:
                self._named.add(phase.name)
                logger.warning(
                    "Phase %r never began: until step %s there were no sequences of %d steps for "
                    "it (boundary=%s). Its updates were not done.",
                    phase.name, f"{step:,}", phase.total, phase.boundary,
                )  # fmt: skip

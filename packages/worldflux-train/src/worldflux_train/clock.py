"""Where a run stands: its clock, counted in steps, and the ticks that go on in bursts too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldflux.atomic import read_json, write_json

FILE = "clock.json"


def tick_of(row: Mapping[str, Any]) -> float:
    """The tick of a row of metrics: what plots go by, since the clock stands still in bursts."""
    return float(row.get("tick", row["step"]))


@dataclass
class Clock:
    """Counters of the loop. Ratios, phases and `train.steps` count steps.

    Intervals of logs, evaluations and checkpoints, and the names of checkpoints, count ticks:
    updates of a burst are done while the clock stands still, and a run may stop among them.
    """

    step: int = 0
    """Actions executed while the run collects; rounds of a fixed size otherwise."""
    agent_steps: int = 0
    """Actions executed."""
    bursts: int = 0
    """Updates done in bursts."""
    episodes: int = 0
    seconds: float = 0.0
    evaluation_due: bool = False
    """An evaluation was stopped by a signal: the resumed run begins with it."""

    @property
    def tick(self) -> int:
        """The clock and the updates done in bursts."""
        return self.step + self.bursts

    def save(self, folder: Path) -> None:
        """Write the counters."""
        write_json(folder / FILE, vars(self))

    def load(self, folder: Path) -> None:
        """Take over the saved counters."""
        for key, value in read_json(folder / FILE).items():
            setattr(self, key, value)

"""What planning in an environment came to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class PlannedEpisode:
    """One episode: whether it succeeded (None: nothing tells), its return and its steps.

    `frames` are pictures of it, uint8 (Y, X, 3), the start first; `goal` is one of the goal, where
    there is one; `path` are places in the picture, (x, y) in [0, 1], where the environment tells.
    """

    success: bool | None
    total: float
    steps: int
    frames: list[Array] = field(default_factory=list, repr=False)
    goal: Array | None = field(default=None, repr=False)
    path: list[tuple[float, float]] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class PlanResult:
    """All episodes, and what a plan took. `planner` says what searched."""

    episodes: list[PlannedEpisode]
    plans: int
    seconds: float
    planner: str

    @property
    def successes(self) -> list[bool]:
        """Of the episodes where something tells."""
        return [each.success for each in self.episodes if each.success is not None]

    @property
    def success(self) -> float | None:
        """The share of episodes that succeeded; None where nothing tells."""
        told = self.successes
        return sum(told) / len(told) if told else None

    @property
    def mean_return(self) -> float:
        """Mean undiscounted return."""
        return float(np.mean([each.total for each in self.episodes]))

    @property
    def seconds_per_plan(self) -> float:
        """Mean time of a plan of one environment."""
        return self.seconds / max(1, self.plans)

    def to_json(self) -> dict[str, Any]:
        """Its numbers as plain data."""
        low, high = interval(sum(self.successes), len(self.successes))
        return {
            "success": self.success,
            "success_interval": None if self.success is None else [low, high],
            "episodes": len(self.episodes),
            "return": self.mean_return,
            "steps": [each.steps for each in self.episodes],
            "plans": self.plans,
            "seconds_per_plan": self.seconds_per_plan,
            "planner": self.planner,
        }


def interval(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson's): of `count` successes in `total` tries."""
    if not total:
        return 0.0, 1.0
    share, square = count / total, _Z95 * _Z95
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = _Z95 * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    half /= 1 + square / total
    return max(0.0, middle - half), min(1.0, middle + half)

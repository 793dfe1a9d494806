"""Runs of consecutive rows of a replay's lanes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Slices:
    """B runs of consecutive rows, each of one lane.

    Sequence b holds `count[b]` rows of `lane[b]` from serial `start[b]` on, at its steps
    `offset[b]` and after; its other steps are padding.
    """

    lane: Ints
    start: Ints
    offset: Ints
    count: Ints

    @classmethod
    def full(cls, lane: Ints, start: Ints, total: int) -> Slices:
        """Slices of `total` rows without padding."""
        return cls(lane, start, np.zeros_like(start), np.full_like(start, total))

    @classmethod
    def none(cls) -> Slices:
        """No slices."""
        empty = np.empty(0, np.int64)
        return cls(empty, empty, empty, empty)

    def then(self, other: Slices) -> Slices:
        """These, followed by `other`."""
        pairs = zip(self.parts(), other.parts(), strict=True)
        return Slices(*(np.concatenate(pair) for pair in pairs))

    def parts(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Its four arrays."""
        return self.lane, self.start, self.offset, self.count

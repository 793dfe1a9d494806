"""The online queue: what was just collected is trained on once before old rows are drawn."""

from __future__ import annotations

import numpy as np

from worldflux_train.replay.lanes import Lanes
from worldflux_train.replay.slices import Ints, Slices


class FreshQueue:
    """Non-overlapping runs of each lane's new rows, oldest first (DreamerV3's online queue)."""

    def __init__(self, lanes: int) -> None:
        self.cursor: Ints = np.zeros(lanes, np.int64)  # first serial not yet handed out

    def take(self, lanes: Lanes, most: int, total: int) -> Slices:
        """Up to `most` runs of `total` rows that were never handed out."""
        self.cursor = np.maximum(self.cursor, lanes.oldest)  # overwritten unseen: gone
        taken: list[tuple[int, int]] = []
        while len(taken) < most:
            waiting = lanes.count - self.cursor
            lane = int(waiting.argmax())
            if waiting[lane] < total:
                break
            taken.append((lane, int(self.cursor[lane])))
            self.cursor[lane] += total
        pairs = np.array(taken, np.int64).reshape(-1, 2)
        return Slices.full(pairs[:, 0], pairs[:, 1], total)

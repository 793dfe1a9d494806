"""Which episodes a replay holds, oldest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worldflux_train.replay.slices import Ints, Slices

if TYPE_CHECKING:
    from worldflux_train.replay.lanes import Lanes

_MOST = 4096  # beginnings noted one by one before those that are gone are dropped


class Begun:
    """Where every episode began that the lanes still hold a row of; kept as rows arrive.

    The order, by first serial and then by lane, is that of the steps they began at. It follows
    from the contents alone, so that a resumed run has the same list.
    """

    def __init__(self) -> None:
        self.lane: Ints = np.empty(0, np.int64)
        self.began: Ints = np.empty(0, np.int64)  # serial of the first row, held or not
        self._new: list[tuple[Ints, Ints]] = []
        self._rows = -1  # rows ever written when the list was last made
        self._held: Slices | None = None

    def add(self, lanes: Lanes, lane: Ints, start: Ints) -> None:
        """Episodes that begin now: their lanes and first serials."""
        if lane.size:
            self._new.append((lane, start))
        if len(self._new) > _MOST:
            self._list(lanes)

    def names(self, lanes: Lanes) -> Ints:
        """What names each of them for good, even when its first rows are gone."""
        self.held(lanes)
        return self.began * lanes.lanes + self.lane

    def clear(self) -> None:
        """Forget all."""
        self.lane = self.began = np.empty(0, np.int64)
        self._new, self._rows = [], -1

    def held(self, lanes: Lanes) -> Slices:
        """What is left of each episode, oldest first."""
        rows = int(lanes.count.sum())
        if self._held is None or rows != self._rows:
            self._held, self._rows = self._list(lanes), rows
        return self._held

    def _list(self, lanes: Lanes) -> Slices:
        if self._new:
            lane = np.concatenate([self.lane, *(part[0] for part in self._new)])
            began = np.concatenate([self.began, *(part[1] for part in self._new)])
            self.lane, self.began, self._new = lane, began, []
        stop = self._stops(lanes)
        kept = np.flatnonzero(stop > lanes.oldest[self.lane])
        kept = kept[np.lexsort((self.lane[kept], self.began[kept]))]
        self.lane, self.began, stop = self.lane[kept], self.began[kept], stop[kept]
        first = np.maximum(self.began, lanes.oldest[self.lane])
        return Slices(self.lane, first, np.zeros_like(stop), stop - first)

    def _stops(self, lanes: Lanes) -> Ints:
        # An episode ends where the next one of its lane begins, the newest with the lane.
        order = np.lexsort((self.began, self.lane))
        lane, start = self.lane[order], self.began[order]
        ends = lanes.count[lane]
        same = lane[1:] == lane[:-1]
        ends[:-1][same] = start[1:][same]
        stop = np.empty_like(ends)
        stop[order] = ends
        return stop

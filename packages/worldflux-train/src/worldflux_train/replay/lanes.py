"""Which rows a replay holds: one ring per environment, and where its episodes begin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ContractError
from worldflux_train.replay.begun import Begun
from worldflux_train.replay.slices import Bools, Ints, Slices


class Lanes:
    """The rings' bookkeeping. Row `serial` of lane e lies in place `serial % size` of its ring.

    A serial counts the rows a lane ever got, so `serial * lanes + lane` names a row for good:
    once the row is overwritten, nothing has that name any more.
    """

    def __init__(self, lanes: int, size: int) -> None:
        self.lanes, self.size = lanes, size
        self.count: Ints = np.zeros(lanes, np.int64)  # rows ever written
        self.ended: Bools = np.ones(lanes, bool)  # the newest row is its episode's last
        # Steps since the episode's first row; -1 where nothing was written.
        self.position: NDArray[np.int32] = np.full((lanes, size), -1, np.int32)
        self.begun = Begun()

    @property
    def filled(self) -> Ints:
        """Rows each lane holds."""
        return np.minimum(self.count, self.size)

    @property
    def oldest(self) -> Ints:
        """Serial of each lane's oldest row."""
        return self.count - self.filled

    def advance(self, lane: Ints, is_first: Bools, is_last: Bools) -> Ints:
        """Make room for one row in each of `lane`; its places."""
        stuck = lane[self.ended[lane] & ~is_first]
        if stuck.size:
            raise ContractError(
                f"Environment {stuck[0]} went on after its last step: the first row of an "
                "episode needs is_first=True."
            )
        place = self.count[lane] % self.size
        before = self.position[lane, place - 1]
        self.position[lane, place] = np.where(is_first, 0, before + 1)
        self.begun.add(self, lane[is_first], self.count[lane[is_first]])
        self.count[lane] += 1
        self.ended[lane] = is_last
        return place

    def extend(self, lane: int, length: int) -> Ints:
        """Make room for a whole episode in one lane; places of as many of its rows as fit."""
        step = np.arange(max(0, length - self.size), length)
        place: Ints = (self.count[lane] + step) % self.size
        self.position[lane, place] = step
        self.begun.add(self, np.array([lane]), self.count[[lane]])
        self.count[lane] += length
        self.ended[lane] = True
        return place

    def abandoned(self, lane: Ints, is_first: Bools) -> Ints:
        """Those of `lane` whose running episode is cut off by a new one."""
        return lane[is_first & ~self.ended[lane]]

    def newest(self, lane: Ints) -> Ints:
        """Storage rows of the newest step of each of `lane`."""
        rows: Ints = lane * self.size + (self.count[lane] - 1) % self.size
        return rows

    def index(self, slices: Slices, total: int) -> Ints:
        """Names (B, total) of the rows of `slices`; -1 at padding."""
        step = np.arange(total) * self.lanes
        base = (slices.start - slices.offset) * self.lanes + slices.lane
        return _padded(base[:, None] + step, slices, total)

    def rows(self, slices: Slices, total: int) -> Ints:
        """Storage rows (B, total) of `slices`; -1 at padding."""
        place = (slices.start - slices.offset)[:, None] % self.size + np.arange(total)
        place[place >= self.size] -= self.size
        if total > self.size:  # only padding reaches so far
            place %= self.size
        return _padded(place + slices.lane[:, None] * self.size, slices, total)

    def locate(self, index: Ints) -> tuple[Ints, Ints, Bools]:
        """Lane and place of each named row, and whether it is still held."""
        serial, lane = np.divmod(index, self.lanes)
        return lane, serial % self.size, (index >= 0) & (serial >= self.oldest[lane])

    def episodes(self) -> Slices:
        """Every episode, or what is left of it, oldest first."""
        return self.begun.held(self)

    @property
    def oldest_position(self) -> Ints:
        """Each lane's oldest row's step in its episode; 0 where nothing is held."""
        lane = np.arange(self.lanes)
        return np.maximum(self.position[lane, self.oldest % self.size], 0).astype(np.int64)

    def restore(self, count: Ints, ended: Bools, is_first: Bools, before: Ints) -> None:
        """Take over saved counters and `oldest_position`; `is_first` (lanes, size) of the rows."""
        self.count, self.ended = count.copy(), ended.copy()
        self.position.fill(-1)
        self.begun.clear()
        for lane in range(self.lanes):
            places = np.arange(self.oldest[lane], self.count[lane]) % self.size
            step = np.arange(places.size, dtype=np.int32)
            begin = np.maximum.accumulate(np.where(is_first[lane, places], step, 0))
            ahead = np.where(np.logical_or.accumulate(is_first[lane, places]), 0, before[lane])
            self.position[lane, places] = step - begin + ahead
            starts = np.unique(self.oldest[lane] + begin - ahead)
            self.begun.add(self, np.full_like(starts, lane), starts)


def _padded(rows: Ints, slices: Slices, total: int) -> Ints:
    if slices.count.min(initial=total) < total:
        step = np.arange(total) - slices.offset[:, None]
        rows[(step < 0) | (step >= slices.count[:, None])] = -1
    return rows

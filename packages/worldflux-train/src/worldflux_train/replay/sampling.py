"""Where sampled sequences begin. A sampler is any function with the signature of these three.

`sampler(lanes, generator, batch, length, context) -> Slices` of `context + length` steps. Others
(weights over parts of the episode list, video clips) can start from `Lanes.episodes()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from worldflux.errors import ContractError
from worldflux_train.replay.lanes import Bools, Ints, Lanes, Slices

Sampler = Callable[[Lanes, np.random.Generator, int, int, int], Slices]

_ROUNDS = 8  # tries of drawing blindly before the possible starts are listed


def cross(
    lanes: Lanes, generator: np.random.Generator, batch: int, length: int, context: int
) -> Slices:
    """Uniform over all runs of rows of one lane, episode boundaries inside or not."""
    total = length + context
    lane, start = _uniform(lanes, generator, batch, total)
    return Slices.full(lane, start, total)


def within(
    lanes: Lanes, generator: np.random.Generator, batch: int, length: int, context: int
) -> Slices:
    """Uniform over all runs of rows that lie in one episode."""
    total = length + context
    lane, start = _inside(lanes, generator, batch, total)
    return Slices.full(lane, start, total)


def pad(
    lanes: Lanes, generator: np.random.Generator, batch: int, length: int, context: int
) -> Slices:
    """Uniform over all rows with their context; what lies beyond the episode's end is padding."""
    total = length + context
    lane, start = _inside(lanes, generator, batch, context + 1)
    serial = start[:, None] + np.arange(total)  # (B, T)
    position = lanes.position[lane[:, None], serial % lanes.slots]
    same = (position - position[:, :1] == np.arange(total)) & (serial < lanes.count[lane][:, None])
    count = np.where(same.all(1), total, same.argmin(1))
    return Slices(lane, start, np.zeros_like(start), count)


SAMPLERS: Mapping[str, Sampler] = {"cross": cross, "within": within, "pad": pad}


def possible(lanes: Lanes, length: int, context: int, boundary: str) -> bool:
    """Whether the sampler of `boundary` has anything to choose from."""
    if boundary == "cross":
        return bool((lanes.filled >= length + context).any())
    return bool(_ends(lanes, context + (length if boundary == "within" else 1)).any())


def _uniform(
    lanes: Lanes, generator: np.random.Generator, batch: int, total: int
) -> tuple[Ints, Ints]:
    # Lanes and first serials (B,) of runs of `total` rows.
    choices = np.maximum(lanes.filled - total + 1, 0)  # (lanes,)
    ends = np.cumsum(choices)
    if not ends[-1]:
        raise _too_few(lanes, total, "of one environment")
    draw = generator.integers(ends[-1], size=batch)
    lane = np.searchsorted(ends, draw, side="right")
    return lane, lanes.oldest[lane] + draw - (ends - choices)[lane]


def _inside(
    lanes: Lanes, generator: np.random.Generator, batch: int, total: int
) -> tuple[Ints, Ints]:
    # As _uniform, all rows in one episode: draw and reject, then list if that goes badly.
    lane, start = np.empty(0, np.int64), np.empty(0, np.int64)
    for _ in range(_ROUNDS):
        new_lane, new_start = _uniform(lanes, generator, batch, total)
        good = lanes.position[new_lane, (new_start + total - 1) % lanes.slots] >= total - 1
        lane = np.concatenate([lane, new_lane[good]])
        start = np.concatenate([start, new_start[good]])
        if lane.size >= batch:
            return lane[:batch], start[:batch]
    listed, slot = np.nonzero(_ends(lanes, total))
    if not listed.size:
        raise _too_few(lanes, total, "of one episode")
    pick = generator.integers(listed.size, size=batch - lane.size)
    head = lanes.count[listed[pick]] - 1
    end = head - (head - slot[pick]) % lanes.slots  # the slot's serial
    return np.concatenate([lane, listed[pick]]), np.concatenate([start, end - total + 1])


def _ends(lanes: Lanes, total: int) -> Bools:
    # (lanes, slots): rows that end a run of `total` held rows of one episode.
    found: Bools = lanes.position >= total - 1
    if total > lanes.slots:
        return np.zeros_like(found)
    early = (lanes.oldest[:, None] + np.arange(total - 1)) % lanes.slots
    found[np.arange(lanes.lanes)[:, None], early] = False
    return found


def _too_few(lanes: Lanes, total: int, whose: str) -> ContractError:
    return ContractError(
        f"The replay holds no {total} consecutive rows {whose} ({int(lanes.filled.sum())} rows in "
        f"all, {lanes.lanes} environments, at most {lanes.slots} each). Collect more before "
        "sampling, ask for shorter sequences, or raise the capacity."
    )

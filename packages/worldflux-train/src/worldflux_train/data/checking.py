"""Looking through recorded data for what is damaged, wrong or there twice, and saying where."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from worldflux.columns import ACTION, OBS
from worldflux.episodes import Episode, check_episode, rows_of
from worldflux.errors import WorldFluxError
from worldflux.recorded import Recorded

_WINDOW = 8
"""Rows in a row that make two episodes overlap, where both have them."""
_MOST_EXACT = 1_000_000
"""Rows up to which every window is looked at; of larger sets one in 16, by its content."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with an episode: its number, where it lies, and a sentence."""

    episode: int
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def check_recorded(
    data: Recorded, tell: Callable[[int], None] = lambda done: None
) -> Iterator[Problem]:
    """Every problem of every episode; all of it is read. `tell` hears how many are done."""
    seen: dict[int, tuple[int, int]] = {}
    sampled = int(data.lengths.sum()) > _MOST_EXACT
    for number in range(len(data)):
        where = str(data.about(number).get("file", f"Episode {number}"))
        try:
            episode = data[number]
            check_episode(data.columns, episode)
        except WorldFluxError as error:
            yield Problem(number, where, str(error).removeprefix(f"{where}: "))
        else:
            for what in (*_values(data, episode), *_overlap(episode, number, seen, sampled)):
                yield Problem(number, where, what)
        tell(number + 1)


def _values(data: Recorded, episode: Episode) -> Iterator[str]:
    """Numbers that are not finite, choices that there are not, actions out of bounds."""
    for name, spec in data.columns.items():
        values = np.asarray(episode[name])
        if values.dtype.kind == "f":
            bad = ~np.isfinite(values.astype(np.float32)).reshape(len(values), -1).all(1)
            if bad.any():
                yield f"{name!r} is not finite in row {int(np.flatnonzero(bad)[0])}"
                continue
        if spec.discrete:
            most = np.array(spec.counts).reshape(spec.shape)
            chosen = values.astype(np.int64)
            bad = ((chosen < 0) | (chosen >= most)).reshape(len(values), -1).any(1)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                yield f"{name!r} is {values[row]} in row {row}: there are {spec.n} choices"
        elif name == ACTION and spec.low == -1.0 and spec.high == 1.0:
            bad = (np.abs(values) > 1 + 1e-5).reshape(len(values), -1).any(1)
            if bad.any():
                yield f"{name!r} is outside [-1, 1] in row {int(np.flatnonzero(bad)[0])}"


def _overlap(
    episode: Episode, number: int, seen: dict[int, tuple[int, int]], sampled: bool
) -> Iterator[str]:
    """The first place where this episode holds the same rows as one before it, if any."""
    names = [name for name in episode if name.startswith(OBS)]
    names += [ACTION] if ACTION in episode else []
    rows = rows_of(episode)
    window = min(_WINDOW, rows)
    sums = [_row_sum(episode, names, row) for row in range(rows)]
    for row in range(rows - window + 1):
        part = sums[row : row + window]
        key = hash(tuple(part))
        if (sampled and key % 16) or (window > 1 and len(set(part)) < window):
            continue  # things that stand still look alike everywhere
        other = seen.setdefault(key, (number, row))
        if other[0] != number:
            yield (
                f"rows {row} to {row + window - 1} are those of episode {other[0]} from row "
                f"{other[1]} on: the episodes overlap"
            )
            return


def _row_sum(episode: Episode, names: list[str], row: int) -> int:
    total = 0
    for name in names:
        total = zlib.crc32(np.ascontiguousarray(episode[name][row]).tobytes(), total)
    return total

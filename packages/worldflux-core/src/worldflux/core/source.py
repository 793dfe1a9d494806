"""Where batches come from: a `Source` chooses `Segments` of its episodes and reads them.

Choosing is cheap, and depends on nothing but the seed, the phase, the number of the update, the
contents and what was chosen before. So a resumed run needs counters and no queue, and how many
workers read changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from worldflux.columns import ACTION, FLAGS, REWARD, STORED, Columns, parts
from worldflux.core.batch import Batch
from worldflux.core.statistics import Statistics
from worldflux.core.windows import Ints
from worldflux.describe import Described, Row, rows, titled
from worldflux.training import Phase

_BLOCKED = (ACTION, REWARD, FLAGS[1])  # read whole under a stride: blocks are made of them


@dataclass(frozen=True, repr=False)
class Segments(Described):
    """Which rows an update is made of: B runs of consecutive rows, each of one source.

    Sequence b has `padding[b]` steps of padding, then `count[b]` rows of `episode[b]` (a replay's
    lane) of source `source[b]` from row `start[b]` on, then padding. `row[b]` is its place in the
    whole batch, whatever part of it this is.
    """

    phase: Phase
    update: int
    source: tuple[str, ...]
    episode: Ints
    start: Ints
    count: Ints
    padding: Ints
    row: Ints

    def described(self) -> tuple[str, list[Row]]:
        """How many sequences each source gives, and a row for each array."""
        sizes = f"phase {self.phase.name!r}, update {self.update}, B={len(self)}"
        given = ", ".join(f"{n} of {name}" for name, n in Counter(self.source).items())
        arrays = ("episode", "start", "count", "padding", "row")
        held = [row for name in arrays for row in rows(name, getattr(self, name))]
        return titled("Segments", sizes, [("source", given), *held])

    def __len__(self) -> int:
        """B."""
        return len(self.source)

    @classmethod
    def of(
        cls, phase: Phase, update: int, source: str, episode: Ints, start: Ints, count: Ints,
        padding: Ints,
    ) -> Segments:  # fmt: skip
        """A whole batch of one source."""
        rows = np.arange(len(episode))
        names = (source,) * len(episode)
        return cls(phase, update, names, episode, start, count, padding, rows)

    @classmethod
    def cat(cls, parts: Sequence[Segments]) -> Segments:
        """Those of several sources as one batch, in this order."""
        first = parts[0]
        names = tuple(name for part in parts for name in part.source)
        arrays = [np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS]
        phase = replace(first.phase, batch=len(names))
        row = np.arange(len(names))
        return cls(phase, first.update, names, **dict(zip(_ARRAYS, arrays, strict=True)), row=row)

    def rows(self, index: Ints) -> Segments:
        """Those sequences alone."""
        chosen = {name: getattr(self, name)[index] for name in (*_ARRAYS, "row")}
        source = tuple(self.source[int(i)] for i in index)
        return replace(self, source=source, **chosen)

    def same_as(self, other: Segments) -> bool:
        """Whether both are the same rows for the same update."""
        whose = (self.phase, self.update, self.source) == (other.phase, other.update, other.source)
        arrays = (*_ARRAYS, "row")
        return whose and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays
        )

    def by_source(self) -> Iterator[tuple[str, Ints, Segments]]:
        """Each source's name, its places here, and its part."""
        for name in dict.fromkeys(self.source):
            index = np.flatnonzero([own == name for own in self.source])
            yield name, index, self.rows(index)


_ARRAYS = tuple(item.name for item in fields(Segments) if item.name in
                ("episode", "start", "count", "padding"))  # fmt: skip


@runtime_checkable
class Source(Protocol):
    """Chooses and reads sequences for a phase; a replay, data on disk, or a mixture of both."""

    @property
    def columns(self) -> Columns:
        """What a step holds; the learner's spaces follow from it."""

    def ready(self, phase: Phase) -> bool:
        """Whether at least `phase.minimum` sequences can be chosen."""

    def choose(self, phase: Phase, update: int) -> Segments:
        """The sequences of update number `update` of a phase. Cheap."""

    def read(self, segments: Segments) -> Batch:
        """The Batch (B, T, ...) of chosen segments; all the reading there is."""

    def write(self, index: Tensor, values: Mapping[str, Tensor]) -> None:
        """Replace stored values (B, T, ...) of the rows in `Batch.index`; those of -1 are skipped.

        A source that keeps none skips them all.
        """

    def statistics(self, column: str) -> Statistics:
        """Mean, deviation and extremes of a column over all its rows."""

    def save(self, folder: Path) -> None:
        """Write what choosing depends on besides the seed; never data that lies elsewhere."""

    def load(self, folder: Path) -> None:
        """Continue as the source that was saved there."""


def steps_to_read(phase: Phase, name: str) -> tuple[int, int, int]:
    """First row, step and number of the rows of a window that column `name` is read from."""
    k = phase.stride
    number = phase.context if name.startswith(STORED) else phase.total
    if k > 1 and name in _BLOCKED:
        return 0, 1, (phase.total + 1) * k - 1
    return k - 1, k, number


def batch_of(
    phase: Phase, segments: Segments, found: Mapping[str, Tensor], index: Tensor | None = None
) -> Batch:
    """The Batch of columns (B, rows, ...) read as `steps_to_read` says, zeros at padding.

    `index` (B, T) names the rows for `write`, where there is one.
    """
    device = found[FLAGS[0]].device
    mask = torch.from_numpy(_held(phase, segments)).to(device) if phase.pad != "none" else None
    whole = found if phase.stride == 1 else {**found, **_blocks(phase, segments, found)}
    return Batch(**parts(whole), mask=mask, index=index, context=phase.context)


def _held(phase: Phase, segments: Segments) -> np.ndarray:
    """Which steps (B, T) are no padding."""
    row = phase.stride - 1 + phase.stride * np.arange(phase.total)
    before = segments.padding[:, None]
    held: np.ndarray = (row >= before) & (row < before + segments.count[:, None])
    return held


def _blocks(phase: Phase, segments: Segments, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Blocks of k actions and sums of k rewards, zero where a block is not whole."""
    k, steps, last = phase.stride, phase.total, found[FLAGS[1]]
    row = np.arange(last.shape[1])
    before = segments.padding[:, None]
    held = torch.from_numpy((row >= before) & (row < before + segments.count[:, None]))
    held = held.to(last.device)  # (B, rows)
    blocks = {FLAGS[1]: last[:, k - 1 :: k][:, :steps]}
    if (action := found.get(ACTION)) is not None:
        whole = (held & ~last)[:, k - 1 :].unflatten(1, (steps, k)).all(2)  # (B, T)
        cut = action[:, k - 1 :].unflatten(1, (steps, k))  # (B, T, k, ...)
        blocks[ACTION] = cut * whole.reshape(*whole.shape, *(1,) * (cut.ndim - 2)).to(cut.dtype)
    if (reward := found.get(REWARD)) is not None:
        whole = held[:, : steps * k].unflatten(1, (steps, k)).all(2)
        blocks[REWARD] = reward[:, : steps * k].unflatten(1, (steps, k)).sum(2) * whole
    return blocks

"""A source over finished episodes, in memory or memory-mapped: read where they lie."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux.atomic import make_folder, read_json, write_json
from worldflux.columns import FLAGS, STORED, Columns, Rows
from worldflux.core.batch import Batch
from worldflux.core.source import Segments, batch_of, steps_to_read
from worldflux.core.statistics import Statistics
from worldflux.core.windows import (
    Drawn,
    Ints,
    clipped,
    draw,
    phase_number,
    possible,
    random_for,
)
from worldflux.episodes import Episode, rows_of
from worldflux.errors import ContractError, StorageError
from worldflux.recorded import Augment, KeptStatistics, Recorded
from worldflux.training import Phase

FILE = "source.json"
_TRIES = 16
Targets = Mapping[str, tuple[NDArray[np.generic], int, int, int]]
"""The array (B, rows, ...) that a column is read into, and which rows (see `steps_to_read`)."""
logger = logging.getLogger(__name__)


class EpisodeSource:
    """Sequences of episodes that do not change.

    It keeps no latents: stored columns that the episodes lack are zero, which is a model's initial
    state, and nothing is written back. `cross` sequences run on from one episode into the next.
    """

    unchanging = True

    def __init__(
        self,
        episodes: Sequence[Episode] | Recorded,
        columns: Columns,
        *,
        seed: int = 0,
        name: str = "data",
        numbers: Sequence[int] | None = None,
        device: str | torch.device = "cpu",
        workers: int = 0,
        augment: Augment | None = None,
        skip_damaged: bool = False,
        kept: KeptStatistics | None = None,
    ) -> None:
        """`columns` is what a learner needs (`Learner.columns`), or all that there is.

        `numbers` are the episodes it draws from (None: all). `workers` threads read a batch, and
        apply `augment` to what they read. With `skip_damaged` a sequence that cannot be read is
        replaced by another one, and the log says so; else it ends in `StorageError`. `kept` is
        where statistics are kept that were computed once.
        """
        self.skip_damaged, self.kept = skip_damaged, kept
        self._damaged: set[int] = set()

        self.episodes, self.columns, self.name, self.seed = episodes, dict(columns), name, seed
        own = range(len(episodes)) if numbers is None else numbers
        self.numbers = np.array(own, np.int64)
        self.device, self.augment = torch.device(device), augment
        self._recorded = episodes if isinstance(episodes, Recorded) else None
        self.drawn = Drawn()
        self._lacks = self._missing()
        self.lengths = self._lengths()
        self._offsets = np.cumsum(self.lengths) - self.lengths
        self._pool = ThreadPoolExecutor(workers, "data") if workers else None

    def ready(self, phase: Phase) -> bool:
        return int(possible(phase, self._runs(phase)).sum()) >= phase.minimum

    def choose(self, phase: Phase, update: int) -> Segments:
        lengths = self._runs(phase)
        random = random_for(self.seed, phase, update)
        drawn, what = self.drawn.of(phase, self.numbers), f"The source {self.name!r}"
        run, begin = draw(phase, lengths, random, drawn, what=what)
        first, count, padding = clipped(phase, begin, lengths[run])
        if phase.boundary == "within":
            self.drawn.add(phase, self.numbers, run)
            start = self._offsets[run] + first
        else:
            start, run = first, np.searchsorted(self._offsets, first, side="right") - 1
        return Segments.of(phase, update, self.name, run, start, count, padding)

    def read(self, segments: Segments) -> Batch:
        phase, found = segments.phase, {}
        filled = phase.stride == 1 and bool((segments.count == phase.total).all())
        for name, spec in self.columns.items():
            if name.startswith(STORED) and not phase.context:
                continue
            steps = steps_to_read(phase, name)[2]
            dtype = getattr(torch, spec.dtype)
            make = torch.empty if filled and name not in self._lacks else torch.zeros
            found[name] = make((len(segments), steps, *spec.shape), dtype=dtype)
        rows = {
            name: (_array(value), *steps_to_read(phase, name))
            for name, value in found.items()
            if name not in self._lacks
        }
        work = list(range(len(segments)))
        if self._pool is None:
            for b in work:
                self._read_or_replace(segments, b, rows)
        else:
            list(self._pool.map(lambda b: self._read_or_replace(segments, b, rows), work))
        moved = {name: value.to(self.device) for name, value in found.items()}
        nothing = torch.full((len(segments), phase.total), -1, device=self.device)
        return batch_of(phase, segments, moved, nothing)

    def write(self, index: Tensor, values: Mapping[str, Tensor]) -> None:
        if bool((index >= 0).any()):
            raise ContractError(
                f"The source {self.name!r} keeps no latents: every index of its batches is -1."
            )

    def statistics(self, column: str) -> Statistics:
        own = {name: spec for name, spec in self.columns.items() if name not in self._lacks}
        found = None if self.kept is None else self.kept.get(column)
        if found is None:
            found = Statistics.over(column, own, self._pieces(column))
            if self.kept is not None:
                self.kept.put(column, found)
        return found

    def _pieces(self, column: str) -> Iterator[Rows]:
        """Each episode's rows of a column, and what tells which of them count."""
        for number in range(len(self.numbers)):
            names = [column, *(flag for flag in FLAGS if flag != column)]
            try:
                yield {name: self._rows_of(number, name, slice(None), (0,)) for name in names}
            except StorageError as error:
                self._note(number, error)

    def save(self, folder: Path) -> None:
        make_folder(folder)
        about = {"drawn": self.drawn.to_json(), "episodes": len(self.numbers), "rows": self._rows}
        write_json(folder / FILE, about)

    def load(self, folder: Path) -> None:
        saved = read_json(folder / FILE)
        now = {"episodes": len(self.numbers), "rows": self._rows}
        for key, value in now.items():
            if saved.get(key) != value:
                raise StorageError(
                    f"The run was trained on {saved.get(key)} {key}, {self.name!r} has {value} "
                    "now: the data changed. Restore it, or begin a new run."
                )
        self.drawn.restore(saved["drawn"])

    @property
    def _rows(self) -> int:
        return int(self.lengths.sum())

    def _runs(self, phase: Phase) -> Ints:
        """Lengths of the runs that windows lie in: the episodes, or all of them end to end."""
        return self.lengths if phase.boundary == "within" else np.array([self._rows])

    def _read_row(self, segments: Segments, b: int, found: Targets) -> None:
        at, left = int(segments.start[b]), int(segments.count[b])
        step, number = int(segments.padding[b]), int(segments.episode[b])
        while left:
            first = at - int(self._offsets[number])
            count = min(left, int(self.lengths[number]) - first)
            self._copy(segments, b, number, first, count, step, found)
            at, left, step, number = at + count, left - count, step + count, number + 1

    def _read_or_replace(self, segments: Segments, b: int, found: Targets) -> None:
        """Row b of a batch; with `skip_damaged` another one of the phase, where it is damaged."""
        for attempt in range(1, _TRIES + 1):
            try:
                return self._read_row(segments, b, found)
            except StorageError as error:
                if attempt == _TRIES:
                    raise
                self._note(int(segments.episode[b]), error)
            for value, *_ in found.values():
                value[b] = 0
            segments = self._replaced(segments, b, attempt)

    def _note(self, number: int, error: StorageError) -> None:
        """Raise the error, or remember the damaged episode and say so once."""
        if not self.skip_damaged:
            raise error
        if number not in self._damaged:
            self._damaged.add(number)
            logger.warning(
                "%s Skipped: %d of %d episodes so far.", error, len(self._damaged),
                len(self.numbers),
            )  # fmt: skip

    def _replaced(self, segments: Segments, b: int, attempt: int) -> Segments:
        """The same with another sequence as row b, drawn from nothing but what chose the batch."""
        phase = replace(segments.phase, batch=1)
        place = (self.seed, phase_number(phase), segments.update, int(segments.row[b]), attempt)
        lengths = self._runs(phase)
        run, begin = draw(phase, lengths, np.random.default_rng(place))
        first, count, padding = clipped(phase, begin, lengths[run])
        if phase.boundary == "within":
            start = self._offsets[run] + first
        else:
            start, run = first, np.searchsorted(self._offsets, first, side="right") - 1
        changed = {}
        for name, value in (("episode", run), ("start", start), ("count", count),
                            ("padding", padding)):  # fmt: skip
            changed[name] = getattr(segments, name).copy()
            changed[name][b] = value[0]
        return replace(segments, **changed)

    def _copy(
        self, segments: Segments, b: int, number: int, first: int, count: int, step: int,
        found: Targets,
    ) -> None:  # fmt: skip
        """Rows `first` to `first + count` of an episode to the window's rows from `step` on."""
        phase = segments.phase
        key = (self.seed, phase_number(phase), segments.update, int(segments.row[b]))
        for name, (target, begin, every, steps) in found.items():
            low = max(0, -(-(step - begin) // every))  # its first step at or after `step`
            high = min(steps, -(-(step + count - begin) // every))
            if low < high:
                row = first + begin + low * every - step
                index = slice(row, row + (high - low - 1) * every + 1, every)
                rows = self._rows_of(number, name, index, key)
                if rows.shape[1:] != target.shape[2:]:
                    raise self._wrong_shape(number, name, rows)
                np.copyto(target[b, low:high], rows, casting="unsafe")

    def _rows_of(
        self, number: int, name: str, index: slice, key: tuple[int, ...]
    ) -> NDArray[np.generic]:
        """Rows (K, ...) of one column, augmented."""
        own = int(self.numbers[number])
        if self._recorded is not None:
            rows = self._recorded.rows(own, name, index)
        else:
            rows = self.episodes[own][name][index]
        return rows if self.augment is None else self.augment.apply(name, rows, key)

    def _wrong_shape(self, number: int, name: str, rows: NDArray[np.generic]) -> ContractError:
        expected = self.columns[name].shape
        own = int(self.numbers[number])
        about = {} if self._recorded is None else self._recorded.about(own)
        remedy = (
            " Give data.augment what brings images to one size, such as "
            "[{resize: {size: 64}}, {centre_crop: {size: 64}}]."
            if self.columns[name].image
            else ""
        )
        return ContractError(
            f"{about.get('file', f'Episode {own}')}: {name!r} has the shape {rows.shape[1:]}, "
            f"expected {expected}.{remedy}"
        )

    def _missing(self) -> frozenset[str]:
        if not len(self.numbers):
            raise ContractError(f"The source {self.name!r} holds no episodes.")
        has = getattr(self.episodes, "columns", None) or self.episodes[int(self.numbers[0])]
        lacks = [name for name in self.columns if name not in has]
        needed = [name for name in lacks if not name.startswith(STORED)]
        if needed:
            raise ContractError(
                f"The source {self.name!r} lacks {', '.join(needed)}, which the learner needs. "
                f"Its steps hold: {', '.join(has)}."
            )
        return frozenset(lacks)

    def _lengths(self) -> Ints:
        if self._recorded is not None:
            found: Ints = self._recorded.lengths[self.numbers]
            return found
        return np.array([rows_of(self.episodes[int(n)]) for n in self.numbers], np.int64)


def _array(tensor: Tensor) -> NDArray[np.generic]:
    """A tensor's memory as an array in the type its column is stored in; bfloat16 as 16 bits."""
    if tensor.dtype == torch.bfloat16:
        bits: NDArray[np.generic] = tensor.view(torch.int16).numpy().view(np.uint16)
        return bits
    array: NDArray[np.generic] = tensor.numpy()
    return array

"""Reads the next batch while the learner works on this one."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from worldflux.columns import Columns
from worldflux.core.batch import Batch
from worldflux.core.source import Segments, Source
from worldflux.core.statistics import Statistics
from worldflux.training import LeastSampled, Phase


class ReadAhead:
    """An unchanging source that reads the following update's batch in a thread of its own.

    What is chosen follows from the update alone, so the batches are the same as without. A phase
    whose choice has a memory (`LeastSampled`) is not read ahead.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._pool = ThreadPoolExecutor(1, "read ahead")
        self._waiting: dict[str, tuple[int, Future[Batch]]] = {}

    @property
    def columns(self) -> Columns:
        return self.source.columns

    def ready(self, phase: Phase) -> bool:
        return self.source.ready(phase)

    def choose(self, phase: Phase, update: int) -> Segments:
        return self.source.choose(phase, update)

    def read(self, segments: Segments) -> Batch:
        phase, update = segments.phase, segments.update
        number, future = self._waiting.pop(phase.name, (-1, None))
        whole = len(segments) == phase.batch
        if future is not None and number == update and whole:
            batch = future.result()
        else:
            batch = self.source.read(segments)
        if whole and not isinstance(phase.weights, LeastSampled):
            following = self._pool.submit(self._following, phase, update + 1)
            self._waiting[phase.name] = (update + 1, following)
        return batch

    def write(self, index: Tensor, values: Mapping[str, Tensor]) -> None:
        self.source.write(index, values)

    def statistics(self, column: str) -> Statistics:
        return self.source.statistics(column)

    def save(self, folder: Path) -> None:
        self.source.save(folder)

    def load(self, folder: Path) -> None:
        self.source.load(folder)

    def close(self) -> None:
        """Stop reading ahead."""
        self._pool.shutdown(cancel_futures=True)

    def _following(self, phase: Phase, update: int) -> Batch:
        return self.source.read(self.source.choose(phase, update))

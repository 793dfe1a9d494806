"""The base of sources that stand around another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from worldflux.columns import Columns
from worldflux.core.batch import Batch
from worldflux.core.source import Segments, Source
from worldflux.core.statistics import Statistics
from worldflux.training import Phase


class SourceAround:
    """Passes everything on to `source`; subclasses change what they are for."""

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def columns(self) -> Columns:
        return self.source.columns

    def ready(self, phase: Phase) -> bool:
        return self.source.ready(phase)

    def choose(self, phase: Phase, update: int) -> Segments:
        return self.source.choose(phase, update)

    def read(self, segments: Segments) -> Batch:
        """The Batch (B, T, ...) of segments."""
        return self.source.read(segments)

    def write(self, index: Tensor, values: Mapping[str, Tensor]) -> None:
        """Keep values (B, T, ...) at the steps `index` (B, T)."""
        self.source.write(index, values)

    def statistics(self, column: str) -> Statistics:
        return self.source.statistics(column)

    def save(self, folder: Path) -> None:
        self.source.save(folder)

    def load(self, folder: Path) -> None:
        self.source.load(folder)

"""A rank's part of what all ranks choose from data that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from worldflux import distributed
from worldflux.columns import Columns
from worldflux.core.batch import Batch
from worldflux.core.source import Segments, Source
from worldflux.core.statistics import Statistics
from worldflux.training import Phase


class RankShare:
    """An unchanging source of which each rank of a distributed run reads its own rows.

    A phase asks for one rank's rows; all ranks choose the same segments for all of them, so that
    together they read what one process would, and count alike how often an episode was drawn.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def columns(self) -> Columns:
        return self.source.columns

    def ready(self, phase: Phase) -> bool:
        return self.source.ready(phase)

    def choose(self, phase: Phase, update: int) -> Segments:
        rank, ranks = distributed.rank(), distributed.world_size()
        whole = self.source.choose(replace(phase, batch=phase.batch * ranks), update)
        own = whole.rows(np.arange(rank * phase.batch, (rank + 1) * phase.batch))
        return replace(own, phase=phase)

    def read(self, segments: Segments) -> Batch:
        return self.source.read(segments)

    def write(self, index: Tensor, values: Mapping[str, Tensor]) -> None:
        self.source.write(index, values)

    def statistics(self, column: str) -> Statistics:
        return self.source.statistics(column)

    def save(self, folder: Path) -> None:
        self.source.save(folder)

    def load(self, folder: Path) -> None:
        self.source.load(folder)


def shared(source: Source) -> Source:
    """`source` as each rank reads it: itself in a run of one process."""
    return source if distributed.world_size() == 1 else RankShare(source)

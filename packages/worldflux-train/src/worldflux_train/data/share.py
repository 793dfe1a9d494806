"""A rank's part of what all ranks choose from data that they share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from worldflux import distributed
from worldflux.core.source import Segments, Source
from worldflux.training import Phase
from worldflux_train.data.around import SourceAround


class RankShare(SourceAround):
    """An unchanging source of which each rank of a distributed run reads its own rows.

    A phase asks for one rank's rows; all ranks choose the same segments for all of them, so that
    together they read what one process would, and count alike how often an episode was drawn.
    """

    def choose(self, phase: Phase, update: int) -> Segments:
        rank, ranks = distributed.rank(), distributed.world_size()
        whole = self.source.choose(replace(phase, batch=phase.batch * ranks), update)
        own = whole.rows(np.arange(rank * phase.batch, (rank + 1) * phase.batch))
        return replace(own, phase=phase)


def shared(source: Source) -> Source:
    """`source` as each rank reads it: itself in a run of one process."""
    return source if distributed.world_size() == 1 else RankShare(source)

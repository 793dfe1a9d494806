"""What every kind of recorded data is to whoever reads it. No torch."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from worldflux.columns import Columns
from worldflux.core.statistics import Statistics
from worldflux.episodes import Episode
from worldflux.specs import TensorSpec


@runtime_checkable
class Recorded(Protocol):
    """Finished episodes, read where they lie: `Episodes`, images, videos, files of others.

    Rows keep the time convention of `core.batch`, whatever the files do. An image is an episode of
    one row. Reading is done by several threads at once.
    """

    @property
    def columns(self) -> Columns:
        """What a row holds."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Rows (E,) of each episode."""

    def __len__(self) -> int:
        """E, the number of episodes."""

    def __getitem__(self, number: int, /) -> Episode:
        """One whole episode: column -> (rows, ...)."""

    def rows(self, number: int, column: str, index: slice) -> NDArray[np.generic]:
        """Some rows (K, ...) of one column of an episode. Only these are read."""

    def about(self, number: int) -> dict[str, Any]:
        """JSON-able facts about an episode; under "file" where it lies, where it has a file."""


class Augment(Protocol):
    """What is done to the columns of a sample after it was read (see `EpisodeSource`)."""

    def spec(self, column: str, spec: TensorSpec) -> TensorSpec:
        """A column's spec afterwards."""

    def apply(
        self, column: str, rows: NDArray[np.generic], key: tuple[int, ...]
    ) -> NDArray[np.generic]:
        """Rows (K, ...) of one sample, changed alike.

        What is random follows from `key` alone: the seed, the phase, the update, the row.
        """


class KeptStatistics(Protocol):
    """Where the statistics of a set are kept."""

    def get(self, column: str) -> Statistics | None:
        """Those of a column, None where they were not computed yet or the data changed."""

    def put(self, column: str, found: Statistics) -> None:
        """Keep them, where that can be written."""

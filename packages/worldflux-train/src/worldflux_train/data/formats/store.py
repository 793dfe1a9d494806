"""`episodes`: our own append-only columns, which recorders, replays and `convert` write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.columns import Columns
from worldflux.episodes import ABOUT, Episode, Episodes, EpisodeWriter
from worldflux.errors import StorageError
from worldflux_train.data.formats.base import DataFormat, FormatOptions


class EpisodeOptions(FormatOptions):
    """Settings of `episodes`."""

    verify: bool = False
    """Whether each episode is compared with its checksums when it is first read."""


class EpisodeStore(DataFormat):
    """The finished episodes of a folder that an `EpisodeWriter` wrote; memory-mapped."""

    Options = EpisodeOptions
    threads = False

    @classmethod
    def finds(cls, path: Path) -> bool:
        return (path / ABOUT).is_file()

    def __init__(self, path: Path, options: FormatOptions) -> None:
        assert isinstance(options, EpisodeOptions), type(options)
        if not self.finds(path):
            found = sorted(inner.parent.name for inner in path.glob(f"*/{ABOUT}"))
            inside = f" Below it: {', '.join(found)}." if found else ""
            raise StorageError(
                f"{path} holds no episodes: there is no {ABOUT}.{inside} Give a folder that the "
                "episode recorder wrote."
            )
        self.path, self.episodes = path, Episodes(path, verify=options.verify)
        self.columns, self.lengths = self.episodes.columns, self.episodes.lengths

    def __getitem__(self, number: int, /) -> Episode:
        return self.episodes[number]

    def rows(self, number: int, column: str, index: slice) -> NDArray[np.generic]:
        return self.episodes.rows(number, column, index)

    @classmethod
    def write_to(
        cls, path: Path, columns: Columns, episodes: Iterable[tuple[Episode, dict[str, Any]]]
    ) -> None:
        """Write a folder as an `EpisodeWriter` does."""
        writer = EpisodeWriter(path, columns)
        for episode, about in episodes:
            writer.write(episode, **about)

    def about(self, number: int) -> dict[str, Any]:
        return {"file": f"{self.path} episode {number}", **self.episodes.about(number)}

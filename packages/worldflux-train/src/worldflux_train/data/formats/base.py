"""What a format of recorded data is; a plugin's own is a subclass of this one."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from worldflux.columns import FLAGS, Columns
from worldflux.config import Config
from worldflux.episodes import Episode
from worldflux.errors import StorageError

logger = logging.getLogger(__name__)


class FormatOptions(Config):
    """The keys of `data.options.*` that a format takes."""

    damaged: Literal["stop", "skip"] = "stop"
    """Whether a file that cannot be opened is an error, or is reported and left out. A run sets it
    by `data.damaged`."""


class DataFormat(ABC):
    """Recorded data in one format, as `worldflux.recorded.Recorded`.

    The constructor opens it without reading it all; it raises `StorageError` with a sentence where
    that fails. Several threads read at once.
    """

    Options: ClassVar[type[FormatOptions]] = FormatOptions
    """The settings this format takes."""
    threads: bool = True
    """Whether reading gains by several threads: where it decodes or waits, not where it copies."""
    held_out: DataFormat | None = None
    """The set's own part for validation, where it has one."""
    columns: Columns
    """What a row holds."""
    lengths: NDArray[np.int64]
    """Rows (E,) of each episode."""

    @classmethod
    @abstractmethod
    def finds(cls, path: Path) -> bool:
        """Whether `path` looks like this format. A quick look: names, no contents."""

    @abstractmethod
    def __init__(self, path: Path, options: FormatOptions) -> None:
        """Opens `path`."""

    @abstractmethod
    def rows(self, number: int, column: str, index: slice) -> NDArray[np.generic]:
        """Some rows (K, ...) of one column of an episode; `StorageError` where it is damaged."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int, /) -> Episode:
        number = range(len(self))[number]
        return {name: self.rows(number, name, slice(None)) for name in self.columns}

    def about(self, number: int) -> dict[str, Any]:
        """JSON-able facts about an episode; "file" is where it lies."""
        return {}


def leave_out(error: StorageError, options: FormatOptions) -> None:
    """Raise the error of a damaged file, or report it, as the options say."""
    if options.damaged == "stop":
        raise error
    logger.warning("%s It is left out.", error)


def flag(name: str, length: int, index: slice, terminal: bool = False) -> NDArray[np.bool_]:
    """Rows (K,) of a flag of an episode of `length` rows; `terminal`: it did not just stop."""
    row = np.arange(length)[index]
    if name == FLAGS[0]:
        found: NDArray[np.bool_] = row == 0
        return found
    last: NDArray[np.bool_] = (row == length - 1) & (terminal or name == FLAGS[1])
    return last

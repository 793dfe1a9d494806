"""Statistics of a set, computed once and kept beside it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.atomic import write_file
from worldflux.core.statistics import Statistics
from worldflux.errors import StorageError
from worldflux.recorded import Recorded
from worldflux_train.data.augment import Augmentations

FILE = ".worldflux-statistics.json"
_ARRAYS = ("mean", "std", "low", "high")
_MOST = 64
logger = logging.getLogger(__name__)


class Kept:
    """Statistics of some episodes of a set, by column, in a file of the set's folder.

    They are those of these episodes, of this state of the files and these augmentations: anything
    else is computed anew.
    """

    def __init__(
        self, path: Path, data: Recorded, numbers: Sequence[int], augment: Augmentations
    ) -> None:
        self.file = path / FILE if path.is_dir() else path.with_name(f".{path.name}{FILE}")
        self._of = (path, data, numbers, augment)

    @cached_property
    def key(self) -> str:
        """What the statistics are of; looked at when some are asked for."""
        path, data, numbers, augment = self._of
        own = hashlib.sha256(np.asarray(numbers, np.int64).tobytes())
        own.update(np.asarray(data.lengths, np.int64).tobytes())
        own.update(repr([step.to_json() for step in augment.steps]).encode())
        own.update(repr(_stamps(path)).encode())
        return own.hexdigest()[:32]

    def get(self, column: str) -> Statistics | None:
        found = self._all().get(f"{self.key}/{column}")
        if found is None:
            return None
        arrays = {name: np.asarray(found[name], np.float64) for name in _ARRAYS}
        return Statistics(**arrays, count=int(found["count"]))

    def put(self, column: str, found: Statistics) -> None:
        kept = self._all()
        kept[f"{self.key}/{column}"] = {
            **{name: getattr(found, name).tolist() for name in _ARRAYS}, "count": found.count,
        }  # fmt: skip
        newest = dict(list(kept.items())[-_MOST:])
        try:
            write_file(self.file, json.dumps(newest).encode())
        except StorageError as error:
            logger.info("statistics are not kept with the data: %s", error)

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(self.file.read_text("utf-8"))
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            return {}  # there are none yet, or they are of no use: they are computed anew


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the file, or of what lies in the folder itself."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [(file.name, file.stat()) for file in files if not file.name.startswith(".")]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]

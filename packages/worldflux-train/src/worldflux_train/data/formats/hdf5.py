"""`hdf5`: ours, videos in one array, robomimic's, D4RL's and Minari's files, or as fields say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.atomic import read_text
from worldflux.columns import Columns, to_json
from worldflux.episodes import Episode
from worldflux.errors import StorageError
from worldflux_train.data.formats.arrays import ArrayFormat, ArrayOptions
from worldflux_train.data.formats.base import FormatOptions
from worldflux_train.data.formats.fields import Arrays, Fields

SUFFIXES = frozenset({".h5", ".hdf5", ".hdf"})
ABOUT = "worldflux_columns"
_INSTALL = "pip install 'worldflux-train[data]'"


class Hdf5(ArrayFormat):
    """HDF5 files, read where they lie. The library reads for one thread at a time."""

    def __init__(self, path: Path, options: FormatOptions) -> None:
        self._open: dict[int, Any] = {}
        self._lock = threading.Lock()
        super().__init__(path, options)

    @classmethod
    def found(cls, path: Path) -> list[Path]:
        if path.is_file():
            return [path] if path.suffix.lower() in SUFFIXES else []
        inside = path / "data" / "main_data.hdf5"  # Minari's
        if inside.is_file():
            return [inside]
        return sorted(file for file in path.glob("*") if file.suffix.lower() in SUFFIXES)

    def _fields(self, options: ArrayOptions) -> Fields:
        """Those of the layout; in Minari's sets with the bounds of the actions it recorded."""
        found = super()._fields(options)
        about = self.files[0].with_name("metadata.json")
        if options.fields is not None or not about.is_file():
            return found
        bounds = _bounds(json.loads(read_text(about)).get("action_space"))
        return found if bounds is None else found.with_(low=bounds[0], high=bounds[1])

    def arrays(self, file: int) -> Arrays:
        return self._opened(file)[1]

    def own_columns(self, file: int) -> dict[str, Any] | None:
        about = self._opened(file)[0].attrs.get(ABOUT)
        return None if about is None else json.loads(about)

    def about(self, number: int) -> dict[str, Any]:
        found = super().about(number)
        if self._own:
            place = self._places[number]
            group = self._opened(place.file)[0][place.below]
            found |= json.loads(group.attrs.get("about", "{}"))
        return found

    def _opened(self, file: int) -> tuple[Any, dict[str, Any]]:
        with self._lock:
            if file not in self._open:
                self._open[file] = _datasets(self.files[file])
            found: tuple[Any, dict[str, Any]] = self._open[file]
            return found

    @classmethod
    def write_to(
        cls, path: Path, columns: Columns, episodes: Iterable[tuple[Episode, dict[str, Any]]]
    ) -> None:
        """Write a file in our layout: a group for each episode, with an array for each column."""
        h5py = _h5py()
        with h5py.File(path, "w") as file:
            file.attrs[ABOUT] = json.dumps(to_json(columns))
            for number, (episode, about) in enumerate(episodes):
                group = file.create_group(f"episode_{number:06d}")
                group.attrs["about"] = json.dumps(about)
                for name in columns:
                    group.create_dataset(name, data=np.asarray(episode[name]))


def _datasets(path: Path) -> tuple[Any, dict[str, Any]]:
    """The open file and its arrays by name."""
    h5py = _h5py()
    try:
        file = h5py.File(path, "r")
        found: dict[str, Any] = {}

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = item

        file.visititems(note)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read as HDF5: {error}. Restore it from a copy."
        ) from error
    return file, found


def _bounds(space: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Lowest and highest actions of a Box space as Minari writes it, where they are finite."""
    space = json.loads(space) if isinstance(space, str) else space
    if not isinstance(space, dict) or space.get("type") != "Box":
        return None
    low, high = (np.asarray(space.get(key), np.float64).ravel() for key in ("low", "high"))
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (high > low).all()):
        return None
    return tuple(low.tolist()), tuple(high.tolist())


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise StorageError(f"Reading HDF5 files needs h5py: {_INSTALL}") from error
    return h5py

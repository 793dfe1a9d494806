"""`npz` and `npy`: numpy's files, one for each episode, or one that holds all."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from worldflux.atomic import make_folder
from worldflux.columns import FLAGS, Columns, to_json
from worldflux.episodes import Episode
from worldflux.errors import StorageError
from worldflux_train.data.formats.arrays import ArrayFormat, Place
from worldflux_train.data.formats.base import FormatOptions
from worldflux_train.data.formats.fields import Arrays, Fields

ABOUT = "columns.json"
_KEPT_BYTES = 2**28
"""Arrays of npz files that were read last are kept, up to so many bytes: they are read whole."""


class Npz(ArrayFormat):
    """`.npz` files; nothing pickled is read."""

    def __init__(self, path: Path, options: FormatOptions) -> None:
        self._kept: OrderedDict[tuple[int, str], NDArray[np.generic]] = OrderedDict()
        self._lock = threading.Lock()
        super().__init__(path, options)

    @classmethod
    def found(cls, path: Path) -> list[Path]:
        if path.is_file():
            return [path] if path.suffix == ".npz" else []
        return sorted(path.glob("*.npz"))

    def arrays(self, file: int) -> Arrays:
        return _Lazy(self, file)

    def own_columns(self, file: int) -> dict[str, Any] | None:
        about = self.path / ABOUT
        if not about.is_file():
            return None
        found: dict[str, Any] = json.loads(about.read_text("utf-8"))
        return found

    def _places_in(self, file: int) -> Iterator[Place]:
        if self._own:
            yield Place(file, rows=len(self.read(file, FLAGS[0])))
        else:
            yield from super()._places_in(file)

    def names(self, file: int) -> list[str]:
        """The names of a file's arrays."""
        with self._loaded(file) as found:
            return list(found.files)

    def read(self, file: int, name: str) -> NDArray[np.generic]:
        """A whole array of a file; it may be kept."""
        with self._lock:
            if (file, name) in self._kept:
                self._kept.move_to_end((file, name))
                return self._kept[file, name]
        with self._loaded(file) as found:
            values: NDArray[np.generic] = found[name]
        with self._lock:
            self._kept[file, name] = values
            while len(self._kept) > 1 and self._bytes() > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return values

    def _bytes(self) -> int:
        return sum(values.nbytes for values in self._kept.values())

    @contextmanager
    def _loaded(self, file: int) -> Iterator[Any]:
        try:
            with np.load(self.files[file], allow_pickle=False) as found:
                yield found
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise StorageError(f"{self.files[file]} cannot be read as npz: {error}.") from error

    @classmethod
    def write_to(
        cls, path: Path, columns: Columns, episodes: Iterable[tuple[Episode, dict[str, Any]]]
    ) -> None:
        """Write a folder with a file for each episode, an array in it for each column."""
        make_folder(path)
        (path / ABOUT).write_text(json.dumps(to_json(columns)))
        for number, (episode, _) in enumerate(episodes):
            values: dict[str, Any] = {name: episode[name] for name in columns}
            np.savez(path / f"episode_{number:06d}.npz", **values)


class _Lazy(Mapping[str, Any]):
    """The arrays of an npz file, each read when it is asked for."""

    def __init__(self, owner: Npz, file: int) -> None:
        self.owner, self.file, self._names = owner, file, owner.names(file)

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        return self.owner.read(self.file, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Npy(ArrayFormat):
    """`.npy` files of frames, memory-mapped: one (N, T, ...) of videos, or (T, ...) for each."""

    @classmethod
    def found(cls, path: Path) -> list[Path]:
        if path.is_file():
            return [path] if path.suffix == ".npy" else []
        return sorted(path.glob("*.npy"))

    def arrays(self, file: int) -> Arrays:
        try:
            values = np.load(self.files[file], mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StorageError(f"{self.files[file]} cannot be read as npy: {error}.") from error
        return {"videos" if values.ndim == 5 else "frames": values}

    def own_columns(self, file: int) -> dict[str, Any] | None:
        return None

    def _fields(self, options: Any) -> Fields:
        if options.fields is not None:
            return super()._fields(options)
        key = next(iter(self.arrays(0)))
        return Fields(layout=key, obs={"image": key})  # type: ignore[arg-type]

"""`images`: image files, each an episode of one row, in a folder for each class or in one folder.

The layout of ImageNet is one of these: `train/<class>/...` and `val/<class>/...`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from worldflux.atomic import make_folder, read_text
from worldflux.columns import Columns
from worldflux.episodes import Episode
from worldflux.errors import StorageError
from worldflux_train.data.formats.base import DataFormat, FormatOptions, flag, leave_out
from worldflux_train.data.formats.pictures import (
    IMAGE,
    LABEL,
    image_columns,
    image_files,
    is_image,
    only_picture,
    read_image,
    write_image,
)

_TRAIN = ("train", "training")
_HELD_OUT = ("val", "validation", "valid", "test")
_NAMES = ("LOC_synset_mapping.txt", "classes.txt", "words.txt")
"""Files beside the folders that say what a class is called: its folder, white space, its name."""


class ImageOptions(FormatOptions):
    """Settings of `images`."""

    channels: Literal[1, 3] = 3
    """3: colours; 1: grey."""
    subset: str | None = None
    """Text file that names the images to take, one a line: as below the folder, or bare names."""


class ImageSet(DataFormat):
    """Image files of any size; with a folder for each class their `extra.label`."""

    Options = ImageOptions
    options: ImageOptions

    @classmethod
    def finds(cls, path: Path) -> bool:
        if not path.is_dir():
            return False
        top = _split(path, _TRAIN) or path
        return any(is_image(entry) for entry in islice(top.iterdir(), 100)) or any(
            is_image(entry) for folder in _folders(top)[:3] for entry in _some(folder)
        )

    def __init__(self, path: Path, options: FormatOptions) -> None:
        assert isinstance(options, ImageOptions), type(options)
        self.options = options
        train = _split(path, _TRAIN)
        classes = [folder.name for folder in _folders(train or path)]
        self._open(train or path, classes, _names(path, classes))
        other = _split(path, _HELD_OUT)
        if train is not None and other is not None:
            held_out = type(self).__new__(type(self))
            held_out.options = options.with_(subset=None)
            held_out._open(other, classes, _names(path, classes))
            self.held_out = held_out

    def _open(self, top: Path, classes: list[str], names: tuple[str, ...]) -> None:
        unknown = [folder.name for folder in _folders(top) if folder.name not in classes]
        if unknown:
            raise StorageError(
                f"{top} has the classes {', '.join(unknown[:5])}, which the images to train on do "
                "not have. Classes are folders; name them alike in both."
            )
        self.top, self._files, found = top, [], []
        places = enumerate(classes) if classes else [(-1, "")]
        for number, folder in places:
            for file in image_files(top / folder) if (top / folder).is_dir() else ():
                self._files.append(str(file.relative_to(top)))
                found.append(number)
        self._labels = np.array(found, np.int64)
        if self.options.subset is not None:
            self._keep(Path(self.options.subset))
        if not self._files:
            raise StorageError(f"{top} holds no images.")
        shape = self._first_shape()
        self.columns = image_columns(shape, names if classes else None)
        self.lengths = np.ones(len(self._files), np.int64)

    def _first_shape(self) -> tuple[int, ...]:
        """The shape (C, Y, X) of the first image that can be read."""
        for name in self._files:
            try:
                return read_image(self.top / name, self.options.channels).shape
            except StorageError as error:
                leave_out(error, self.options)
        raise StorageError(f"{self.top} holds no image that can be read.")

    def _keep(self, listed: Path) -> None:
        """Only those that the file `listed` names; each line has to name one."""
        wanted = {line.strip() for line in read_text(listed).splitlines() if line.strip()}
        kept, met = [], set()
        for number, name in enumerate(self._files):
            own = wanted & {name, Path(name).name, str(Path(name).with_suffix(""))}
            if own:
                kept.append(number)
                met |= own
        missing = sorted(wanted - met)
        if missing:
            raise StorageError(
                f"{listed} names {len(missing)} images that are not in {self.top}, such as "
                f"{missing[0]!r}."
            )
        self._files = [self._files[number] for number in kept]
        self._labels = self._labels[kept]

    def rows(self, number: int, column: str, index: slice) -> NDArray[np.generic]:
        if column == IMAGE:
            return read_image(self.top / self._files[number], self.options.channels)[None][index]
        if column == LABEL:
            return self._labels[number : number + 1][index]
        return flag(column, 1, index)

    @classmethod
    def write_to(
        cls, path: Path, columns: Columns, episodes: Iterable[tuple[Episode, dict[str, Any]]]
    ) -> None:
        """Write every frame as a PNG, in a folder for its class where there are labels."""
        key, names = only_picture(columns), _class_folders(columns)
        make_folder(path)
        for folder in names:
            make_folder(path / folder)
        for number, (episode, _) in enumerate(episodes):
            for row, image in enumerate(episode[key]):
                folder = names[int(episode[LABEL][row])] if names else ""
                write_image(path / folder / f"{number:06d}_{row:06d}.png", image)

    def about(self, number: int) -> dict[str, Any]:
        return {"file": str(self.top / self._files[number])}


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _some(folder: Path) -> list[Path]:
    """A few files of a folder or of the first one in it."""
    found = list(islice(folder.iterdir(), 20))
    inner = next((entry for entry in found if entry.is_dir()), None)
    return found if inner is None else [*found, *islice(inner.iterdir(), 20)]


def _split(path: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of a part of the set, where the set has parts."""
    if not any((path / name).is_dir() for name in _TRAIN):
        return None
    return next((path / name for name in names if (path / name).is_dir()), None)


def _names(path: Path, classes: list[str]) -> tuple[str, ...]:
    """What the classes are called: as a file beside them says, else as their folders."""
    for name in _NAMES:
        if (path / name).is_file():
            pairs = (line.split(maxsplit=1) for line in read_text(path / name).splitlines())
            called = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
            return tuple(called.get(folder, folder) for folder in classes)
    return tuple(classes)


def _class_folders(columns: Columns) -> list[str]:
    """A folder's name for each class, in their order; none without labels."""
    spec = columns.get(LABEL)
    if spec is None or not isinstance(spec.n, int):
        return []
    names = spec.labels or tuple(str(number) for number in range(spec.n))
    digits = len(str(spec.n - 1))
    ordered = list(names) == sorted(names)
    return [
        re.sub(r"[^A-Za-z0-9._-]+", "_", name if ordered else f"{number:0{digits}d}_{name}")
        for number, name in enumerate(names)
    ]

"""`cifar`: the binary layout of CIFAR-10 and CIFAR-100 (Krizhevsky 2009), memory-mapped.

A record is the label's bytes (one; in CIFAR-100 the coarse and the fine one) and 3072 bytes of a
32x32 image, channel by channel. The layout "python version" is pickled, and unpickling runs
whatever code a file holds, so that it is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.atomic import make_folder, read_text, write_file
from worldflux.errors import StorageError
from worldflux_train.data.formats.base import DataFormat, FormatOptions, flag
from worldflux_train.data.formats.pictures import IMAGE, LABEL, image_columns

SHAPE = (3, 32, 32)
_PIXELS = 3072
_TEN, _HUNDRED = "batches.meta.txt", "fine_label_names.txt"
_PICKLED = ("batches.meta", "meta", "data_batch_1")


class Cifar(DataFormat):
    """Images 32x32 with a label, from `data_batch_*.bin` and `test_batch.bin`, which is held out.

    CIFAR-100: `train.bin` and `test.bin`, with the fine labels.
    """

    @classmethod
    def finds(cls, path: Path) -> bool:
        own = path.is_dir() and bool(_parts(path)[0])
        return own or (path / "data_batch_1").is_file()

    def __init__(self, path: Path, options: FormatOptions) -> None:
        train, test = _parts(path)
        if not train:
            pickled = [name for name in _PICKLED if (path / name).is_file()]
            what = (
                f"{path} is the python version ({', '.join(pickled)}), which is pickled: reading "
                "it would run whatever code it holds. Get the binary version (for C programs)."
                if pickled
                else f"{path} holds neither data_batch_*.bin nor train.bin."
            )
            raise StorageError(what)
        self._open(path, train)
        if test:
            held_out = type(self).__new__(type(self))
            held_out._open(path, test)
            self.held_out = held_out

    def _open(self, path: Path, files: list[Path]) -> None:
        fine = not (path / _TEN).is_file() and (path / _HUNDRED).is_file()
        names = read_text(path / (_HUNDRED if fine else _TEN)).split() if fine or (
            path / _TEN).is_file() else [str(number) for number in range(10)]  # fmt: skip
        self._label = 1 if fine else 0
        width = self._label + 1 + _PIXELS
        self._files, self._records = files, [_mapped(file, width) for file in files]
        self._ends = np.cumsum([len(records) for records in self._records])
        self.columns = image_columns(SHAPE, tuple(names))
        self.lengths = np.ones(int(self._ends[-1]), np.int64)

    def rows(self, number: int, column: str, index: slice) -> NDArray[np.generic]:
        if column not in (IMAGE, LABEL):
            return flag(column, 1, index)
        which, place = self._place(number)
        record = self._records[which][place]
        if column == IMAGE:
            return record[None, self._label + 1 :].reshape(1, *SHAPE)[index]
        label, most = int(record[self._label]), self.columns[LABEL].counts[0]
        if label >= most:
            raise StorageError(
                f"{self._files[which]} is damaged: image {place} has the label {label}, there are "
                f"{most} classes."
            )
        return np.array([label], np.int64)[index]

    def about(self, number: int) -> dict[str, Any]:
        which, place = self._place(number)
        return {"file": f"{self._files[which]} image {place}"}

    def _place(self, number: int) -> tuple[int, int]:
        which = int(np.searchsorted(self._ends, number, side="right"))
        return which, number - int(self._ends[which - 1] if which else 0)


def write_cifar(
    path: Path, name: str, images: NDArray[np.uint8], labels: NDArray[np.int64], names: list[str]
) -> None:
    """Write images (N, 3, 32, 32) and labels (N,) to `path/name` in the layout of CIFAR-10."""
    make_folder(path)
    write_file(path / _TEN, ("\n".join(names) + "\n").encode())
    records = np.concatenate([labels[:, None].astype(np.uint8), images.reshape(-1, _PIXELS)], 1)
    write_file(path / name, records.tobytes())


def _parts(path: Path) -> tuple[list[Path], list[Path]]:
    """The files to train on and those held out."""
    ten = sorted(path.glob("data_batch_*.bin"))
    hundred = (path / "train.bin").is_file() and (path / _HUNDRED).is_file()
    train = ten or [path / "train.bin"] * hundred
    test = [path / name for name in ("test_batch.bin", "test.bin") if (path / name).is_file()]
    return train, test[:1]


def _mapped(file: Path, width: int) -> NDArray[np.uint8]:
    size = file.stat().st_size
    if not size or size % width:
        raise StorageError(
            f"{file} is damaged: it has {size} bytes, which are not whole records of {width}. "
            "Restore it from a copy."
        )
    return np.asarray(np.memmap(file, np.uint8, "r").reshape(-1, width))

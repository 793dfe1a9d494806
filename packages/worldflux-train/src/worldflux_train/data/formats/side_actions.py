"""Files of actions that lie beside files of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ContractError, StorageError
from worldflux.specs import TensorSpec

Ints = NDArray[np.int64]


class SideActions:
    """`.npy` files (F,) of choices or (F, A) of numbers, one for each episode, or none at all.

    A file has a row for each frame, or for each but the last.
    """

    def __init__(self, files: list[Path], frames: list[int], choices: int | None) -> None:
        self.files = files
        there = [file for file in files if file.is_file()]
        if there and len(there) < len(files):
            lacks = next(file for file in files if not file.is_file())
            raise StorageError(
                f"{len(there)} of {len(files)} episodes have a file of actions; {lacks} is not "
                "there. Give every episode one, or none."
            )
        self._arrays = [_opened(file, count) for file, count in zip(there, frames, strict=False)]
        self.spec = _spec(self._arrays, there, choices) if there else None

    def at(self, number: int, frames: Ints) -> NDArray[np.generic]:
        """The actions (K, ...) at these frames (K,) of an episode; 0 where the last has none."""
        values = self._arrays[number]
        found = np.asarray(values[np.minimum(frames, len(values) - 1)])
        found[frames >= len(values)] = 0
        return found


def _opened(file: Path, frames: int) -> NDArray[np.generic]:
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StorageError(f"{file} cannot be read: {error}.") from error
    if len(values) not in (frames, frames - 1):
        raise StorageError(
            f"{file} has {len(values)} actions for {frames} frames: give one for each frame, or "
            "for each but the last."
        )
    return np.asarray(values)


def _spec(arrays: list[NDArray[np.generic]], files: list[Path], choices: int | None) -> TensorSpec:
    first = arrays[0]
    for file, values in zip(files, arrays, strict=True):
        if values.shape[1:] != first.shape[1:] or values.dtype.kind != first.dtype.kind:
            raise StorageError(
                f"{file} has actions {values.shape[1:]} of {values.dtype}, {files[0]} has "
                f"{first.shape[1:]} of {first.dtype}."
            )
    if first.dtype.kind == "f":
        return TensorSpec(first.shape[1:], "float32", low=-1.0, high=1.0)
    most = max(int(values.max(initial=0)) for values in arrays)
    if choices is not None and most >= choices:
        raise ContractError(
            f"data.options.actions={choices}, but the files hold action {most}: numbers go from 0 "
            f"to {choices - 1}."
        )
    return TensorSpec((), "int64", n=choices or most + 1)

"""Where the rows lie: in memory, in memory-mapped files, or on the accelerator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from worldflux.atomic import make_folder
from worldflux.columns import Columns, storage_dtype
from worldflux.errors import StorageError
from worldflux_train.replay.lanes import Lanes
from worldflux_train.replay.slices import Ints, Slices
from worldflux_train.replay.values import Array, torch_dtype, view_array, view_tensor

# Rows of more bytes are copied in contiguous runs, which is faster; smaller ones by index.
_NARROW = 64


class Storage(Protocol):
    """Columns of `lanes * size` rows each; a row is addressed by `lane * size + place`."""

    def put(self, rows: Ints, values: Mapping[str, Array]) -> None:
        """Write one value per row."""

    def write_back(self, lanes: Lanes, index: Tensor, values: Mapping[str, Tensor]) -> Ints | None:
        """Write values (B, T, ...) to the rows named by `index` (B, T) that are still held.

        Returns which those were, or None if that is not known here.
        """

    def read(self, lanes: Lanes, slices: Slices, lengths: Mapping[str, int]) -> dict[str, Tensor]:
        """Each column of `slices`, its first `lengths[name]` steps; zeros at padding."""

    def block(self, first: int, last: int, names: list[str]) -> dict[str, Array]:
        """Rows `first` to `last` of the named columns, to be saved."""

    def put_block(self, first: int, values: Mapping[str, Array]) -> None:
        """Take back what `block` gave."""


class HostStorage:
    """Arrays in memory or in files, sampled into buffers that are used again and again.

    On the CPU the batch is the buffers: it holds until the next `read` of the same shape. For an
    accelerator two pinned sets take turns, so that one is filled while the other is being sent.
    """

    def __init__(
        self, columns: Columns, rows: int, device: torch.device, folder: Path | None = None
    ) -> None:
        self.columns, self.device = columns, device
        self.arrays = {name: self._array(name, rows, folder) for name in columns}
        self._buffers: dict[tuple[tuple[str, int], ...], list[_Buffers]] = {}

    def put(self, rows: Ints, values: Mapping[str, Array]) -> None:
        for name, value in values.items():
            self.arrays[name][rows] = value

    def write_back(self, lanes: Lanes, index: Tensor, values: Mapping[str, Tensor]) -> Ints:
        lane, place, held = lanes.locate(index.cpu().numpy())
        rows: Ints = lane * lanes.size + place
        for name, value in values.items():
            array = view_array(value.cpu().contiguous())
            if held.all():
                self.arrays[name][rows] = array
            else:
                self.arrays[name][rows[held]] = array[held]
        return rows[held]

    def read(self, lanes: Lanes, slices: Slices, lengths: Mapping[str, int]) -> dict[str, Tensor]:
        buffers = self._next(slices.lane.size, lengths)
        total = max(lengths.values())
        copies, rows = _contiguous(lanes, slices), lanes.rows(slices, total)
        padding = rows < 0 if (slices.count < total).any() else None
        for name, length in lengths.items():
            source, target = self.arrays[name], buffers.arrays[name]
            if source[0].nbytes <= _NARROW:
                np.take(source, rows[:, :length], axis=0, out=target, mode="clip")
            else:
                _copy(source, target, copies, length)
            if padding is not None:
                target[padding[:, :length]] = 0
        return buffers.send(self.device)

    def block(self, first: int, last: int, names: list[str]) -> dict[str, Array]:
        return {name: self.arrays[name][first:last] for name in names}

    def put_block(self, first: int, values: Mapping[str, Array]) -> None:
        for name, value in values.items():
            self.arrays[name][first : first + len(value)] = value

    def _array(self, name: str, rows: int, folder: Path | None) -> Array:
        spec = self.columns[name]
        shape, dtype = (rows, *spec.shape), storage_dtype(spec)
        if folder is None:
            return np.empty(shape, dtype)
        path = folder / f"{quote(name, safe='')}.bin"
        make_folder(folder)
        try:
            return np.asarray(np.memmap(path, dtype, "w+", shape=shape))
        except OSError as error:
            raise StorageError(
                f"{path} could not be made: {error.strerror or error}. Free space or give the "
                "replay another folder."
            ) from error

    def _next(self, batch: int, lengths: Mapping[str, int]) -> _Buffers:
        key = (("", batch), *lengths.items())
        if key not in self._buffers:
            pin = self.device.type == "cuda"
            sets = 2 if pin else 1
            self._buffers[key] = [_Buffers(self.columns, batch, lengths, pin) for _ in range(sets)]
        buffers = self._buffers[key].pop()
        self._buffers[key].insert(0, buffers)
        buffers.wait()
        return buffers


class _Buffers:
    def __init__(self, columns: Columns, batch: int, lengths: Mapping[str, int], pin: bool) -> None:
        # np.empty asks for huge pages, which makes the copy a third faster; np.zeros does not.
        self.arrays: dict[str, Array] = {}
        self.tensors: dict[str, Tensor] = {}
        for name, length in lengths.items():
            spec = columns[name]
            array = np.empty((batch, length, *spec.shape), storage_dtype(spec))
            tensor = view_tensor(array, spec)
            self.tensors[name] = tensor.pin_memory() if pin else tensor
            self.arrays[name] = view_array(self.tensors[name])
        self.sent: torch.cuda.Event | None = None

    def send(self, device: torch.device) -> dict[str, Tensor]:
        if device.type == "cpu":
            return dict(self.tensors)
        moved = {name: item.to(device, non_blocking=True) for name, item in self.tensors.items()}
        if device.type == "cuda":
            self.sent = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.sent.record()
        return moved

    def wait(self) -> None:
        """Until the accelerator has read the buffers, which are about to be filled again."""
        if self.sent is not None:
            self.sent.synchronize()


class DeviceStorage:
    """Tensors on the accelerator, gathered there by index: nothing is copied from the host."""

    def __init__(self, columns: Columns, rows: int, device: torch.device) -> None:
        self.columns, self.device = columns, device
        # One row more than is used: writes to rows that are gone land there, without a sync.
        self.tensors = {
            name: torch.zeros((rows + 1, *spec.shape), dtype=torch_dtype(spec), device=device)
            for name, spec in columns.items()
        }

    def put(self, rows: Ints, values: Mapping[str, Array]) -> None:
        where = torch.from_numpy(rows).to(self.device)
        for name, value in values.items():
            self.tensors[name][where] = view_tensor(value, self.columns[name]).to(self.device)

    def write_back(self, lanes: Lanes, index: Tensor, values: Mapping[str, Tensor]) -> None:
        oldest = torch.from_numpy(lanes.oldest).to(self.device)
        index = index.to(self.device)
        lane, serial = index % lanes.lanes, index.div(lanes.lanes, rounding_mode="floor")
        held = (index >= 0) & (serial >= oldest[lane])
        row = torch.where(held, lane * lanes.size + serial % lanes.size, lanes.position.size)
        for name, value in values.items():
            self.tensors[name][row] = value.to(self.device)

    def read(self, lanes: Lanes, slices: Slices, lengths: Mapping[str, int]) -> dict[str, Tensor]:
        rows = lanes.rows(slices, max(lengths.values()))
        empty = torch.from_numpy(rows < 0).to(self.device) if (rows < 0).any() else None
        where = torch.from_numpy(rows).to(self.device)
        found = {}
        for name, length in lengths.items():
            found[name] = self.tensors[name][where[:, :length]]
            if empty is not None:
                found[name][empty[:, :length]] = 0
        return found

    def block(self, first: int, last: int, names: list[str]) -> dict[str, Array]:
        return {name: view_array(self.tensors[name][first:last].cpu()) for name in names}

    def put_block(self, first: int, values: Mapping[str, Array]) -> None:
        for name, value in values.items():
            tensor = view_tensor(np.ascontiguousarray(value), self.columns[name])
            self.tensors[name][first : first + len(value)] = tensor.to(self.device)


def _copy(
    source: Array, target: Array, copies: list[tuple[int, int, int, int]], length: int
) -> None:
    for sequence, step, row, count in copies:
        count = min(count, length - step)
        if count > 0:
            target[sequence, step : step + count] = source[row : row + count]


def _contiguous(lanes: Lanes, slices: Slices) -> list[tuple[int, int, int, int]]:
    # (sequence, step, row, count) of each copy; a run over the ring's end makes two.
    copies = []
    runs = zip(*(part.tolist() for part in slices.parts()), strict=True)
    for sequence, (lane, start, offset, count) in enumerate(runs):
        place = start % lanes.size
        head = min(count, lanes.size - place)
        copies.append((sequence, offset, lane * lanes.size + place, head))
        if head < count:
            copies.append((sequence, offset + head, lane * lanes.size, count - head))
    return copies

"""Episodes whose files keep a step's action and reward as everybody else does, in our convention.

Elsewhere row t holds an observation, the action taken there and the reward that came after it; here
a reward stands in the row of the observation it arrived with, and the last row has no action.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worldflux.columns import ACTION, EXTRA, FLAGS, OBS, REWARD, Columns, storage_dtype
from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux_train.data.formats.base import DataFormat, flag

Array = NDArray[np.generic]
Part = Callable[[slice], Array]
"""Some rows (K, ...) of one kind of value, by a slice with a positive step."""


@dataclass(frozen=True)
class Steps:
    """One episode of `rows` observations, as its file has it.

    `action` row t was taken at observation t, `reward` row t came after it: both have at least
    rows - 1 of them. `terminal`: the episode really ended, it did not just stop.
    """

    rows: int
    obs: Mapping[str, Part]
    action: Part | None = None
    reward: Part | None = None
    terminal: bool = False
    extra: Mapping[str, Part] = field(default_factory=dict)

    def read(self, column: str, spec: TensorSpec, index: slice) -> Array:
        """Rows (K, ...) of a column, in our convention and the column's type."""
        if column in FLAGS:
            return flag(column, self.rows, index, self.terminal)
        start, stop, step = index.indices(self.rows)
        taken = np.arange(start, stop, step)
        found = np.zeros((len(taken), *spec.shape), storage_dtype(spec))
        if not len(taken):
            return found
        part, shift, good = self._part(column, taken)
        held = taken[good]
        if len(held):
            every = slice(int(held[0]) - shift, int(held[-1]) - shift + 1, step)
            values = part(every)
            if values.shape != (len(held), *spec.shape):
                raise StorageError(
                    f"rows {held[0]} to {held[-1]} of {column!r} have the shape {values.shape}, "
                    f"expected {(len(held), *spec.shape)}"
                )
            found[good] = values
        return found

    def _part(self, column: str, taken: NDArray[np.int64]) -> tuple[Part, int, NDArray[np.bool_]]:
        """What a column is read from, by how many rows it is shifted, and which rows have it."""
        if column == ACTION and self.action is not None:
            return self.action, 0, taken < self.rows - 1
        if column == REWARD and self.reward is not None:
            return self.reward, 1, taken > 0
        named = {OBS: self.obs, EXTRA: self.extra}
        for prefix, parts in named.items():
            if column.startswith(prefix):
                return parts[column.removeprefix(prefix)], 0, np.ones(len(taken), bool)
        raise StorageError(f"there is no {column!r}")


class StepFormat(DataFormat):
    """A format that makes the `Steps` of each episode when they are asked for."""

    @abstractmethod
    def steps(self, number: int) -> Steps:
        """Episode `number`. Cheap: what it holds is read by its parts."""

    def rows(self, number: int, column: str, index: slice) -> Array:
        try:
            return self.steps(number).read(column, self.columns[column], index)
        except (StorageError, OSError, ValueError, KeyError) as error:
            where = self.about(number).get("file", f"Episode {number}")
            raise StorageError(f"{where}: {error}") from error


def whole(values: Array) -> Part:
    """The part of an array or of what slices like one."""
    return lambda index: np.asarray(values[index])


def spec_of(values: Array, *, bound: bool = False) -> TensorSpec:
    """The spec of rows (K, ...): floats as float32, bytes with three axes as images (C, Y, X).

    `bound`: an action, whose numbers lie within [-1, 1].
    """
    shape, dtype = tuple(values.shape[1:]), np.dtype(values.dtype)
    if dtype == np.uint8 and len(shape) == 3:
        return TensorSpec(to_channels_first(shape), "uint8", low=0, high=255)
    if dtype.kind in "iu" and bound and not shape:
        most = int(np.max(values, initial=0))
        return TensorSpec((), "int64", n=most + 1)
    if dtype.kind == "f":
        return TensorSpec(shape, "float32", *((-1.0, 1.0) if bound else ()))
    return TensorSpec(shape, {"b": "bool", "u": "uint8"}.get(dtype.kind, "int64"))


def to_channels_first(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, Y, X) of an image's shape, which may be (Y, X, C)."""
    first, middle, last = shape
    return (last, first, middle) if channels_last(shape) else (first, middle, last)


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an image of this shape is (Y, X, C): its last axis is one of channels."""
    return len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4)


def pictures(part: Part) -> Part:
    """Images (K, Y, X, C) as (K, C, Y, X); anything else as it is."""

    def read(index: slice) -> Array:
        found = part(index)
        return found.transpose(0, 3, 1, 2) if channels_last(found.shape[1:]) else found

    return read


def columns_of(
    obs: Mapping[str, TensorSpec], action: TensorSpec | None, reward: bool,
    extra: Mapping[str, TensorSpec] | None = None,
) -> Columns:  # fmt: skip
    """The columns of a set; see `worldflux.columns.step_columns`."""
    from worldflux.columns import step_columns

    return step_columns(obs, action, reward=reward, extra=extra)

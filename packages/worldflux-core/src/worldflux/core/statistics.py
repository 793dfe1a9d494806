"""Mean, deviation and extremes of a column, gathered piece by piece. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldflux.columns import ACTION, FLAGS, REWARD, Columns, Rows
from worldflux.errors import ContractError, did_you_mean
from worldflux.specs import TensorSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """Of a column of shape S over `count` rows: each array is S; (C, 1, 1) for an image."""

    mean: Floats
    std: Floats
    low: Floats
    high: Floats
    count: int

    @classmethod
    def over(cls, column: str, columns: Columns, pieces: Iterable[Rows]) -> Statistics:
        """Those of `column` over pieces of rows.

        Actions of last rows and rewards of first ones, which mean nothing, do not count.
        """
        if column not in columns:
            raise ContractError(
                f"There is no column {column!r} to take statistics of."
                f"{did_you_mean(column, columns)} Columns: {', '.join(columns)}."
            )
        spec, skip = columns[column], {ACTION: FLAGS[1], REWARD: FLAGS[0]}.get(column)
        sums = _Sums(spec)
        for rows in pieces:
            value = np.asarray(rows[column])
            sums.add(value if skip is None else value[~np.asarray(rows[skip], bool)])
        return sums.result(column)

    def joined(self, other: Statistics) -> Statistics:
        """Those over the rows of both."""
        total = self.count + other.count
        share = other.count / total
        apart = other.mean - self.mean
        variance = (1 - share) * self.std**2 + share * other.std**2 + share * (1 - share) * apart**2
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Statistics(self.mean + share * apart, np.sqrt(variance), low, high, total)


class _Sums:
    """Running count, mean and squared distance (Chan, Golub and LeVeque's merging)."""

    def __init__(self, spec: TensorSpec) -> None:
        self.axes = (0, 2, 3) if spec.image else (0,)
        self.count, self.rows = 0, 0
        self.mean = self.square = np.zeros(())
        self.low, self.high = np.array(np.inf), np.array(-np.inf)

    def add(self, value: NDArray[np.generic]) -> None:
        if not len(value):
            return
        piece = value.astype(np.float64)
        keep = len(self.axes) > 1
        number = int(np.prod([piece.shape[axis] for axis in self.axes]))
        mean = piece.mean(self.axes, keepdims=keep)
        square = ((piece - mean) ** 2).sum(self.axes, keepdims=keep)
        low, high = piece.min(self.axes, keepdims=keep), piece.max(self.axes, keepdims=keep)
        if keep:
            mean, square, low, high = mean[0], square[0], low[0], high[0]
        total = self.count + number
        apart = mean - self.mean
        self.square = self.square + square + apart**2 * self.count * number / total
        self.mean = self.mean + apart * number / total
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.count, self.rows = total, self.rows + len(piece)

    def result(self, column: str) -> Statistics:
        if not self.count:
            raise ContractError(f"There are no rows to take statistics of {column!r} from.")
        std = np.sqrt(self.square / self.count)
        return Statistics(self.mean, std, self.low, self.high, self.rows)

"""Images resized with proper filtering, by two matrix products; no image library needed."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, get_args

import numpy as np

from worldflux.errors import EnvError

Filter = Literal["area", "bilinear"]
FILTERS: tuple[str, ...] = get_args(Filter)


def resize(image: np.ndarray, size: tuple[int, int], method: Filter = "area") -> np.ndarray:
    """`image` (..., Y, X) of any dtype at `size` (rows, columns), rounded if it is integer."""
    if method not in FILTERS:
        raise EnvError(f"There is no filter {method!r}: choose one of {', '.join(FILTERS)}.")
    if image.shape[-2:] == tuple(size):
        return image.copy()
    work = np.float64 if image.dtype.itemsize > 4 else np.float32
    rows: Any = weights(image.shape[-2], size[0], method).astype(work)
    columns: Any = weights(image.shape[-1], size[1], method).astype(work)
    resized = rows @ (image.astype(work) @ columns.T)
    if image.dtype == np.bool_:
        return resized >= 0.5
    return np.rint(resized).astype(image.dtype) if image.dtype.kind in "iu" else resized


@cache
def weights(source: int, target: int, method: Filter) -> np.ndarray:
    """(target, source) share of each source pixel in each target pixel; rows sum to 1."""
    scale = source / target
    pixels = np.arange(source)[None, :]
    outputs = np.arange(target)[:, None]
    if method == "area":
        # Overlap of [i, i+1) with the target's footprint.
        overlap = np.minimum(pixels + 1, (outputs + 1) * scale) - np.maximum(
            pixels, outputs * scale
        )
        share = np.maximum(overlap, 0.0)
    else:
        # A triangle as wide as the larger of the two pixels: no aliasing when shrinking.
        centre = (outputs + 0.5) * scale - 0.5
        share = np.maximum(0.0, 1.0 - np.abs(pixels - centre) / max(scale, 1.0))
    return share / share.sum(axis=1, keepdims=True)

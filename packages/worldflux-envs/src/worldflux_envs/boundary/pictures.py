"""Which spaces are pictures, and each picture as uint8 (C, Y, X)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces

from worldflux.errors import EnvError
from worldflux_envs.boundary.faults import EnvFault, misfit
from worldflux_envs.boundary.vectors import as_array

Convert = Callable[[Any], Any]
_CHANNELS = (1, 3, 4)
# Below this many rows or columns, only bytes with 1, 3 or 4 channels are taken for a picture.
_SMALLEST_SIDE = 16
# Upper ends of what a picture's values go to, from 0.
_GREY_RANGES = (1.0, 255.0, 65535.0)


class Axes(NamedTuple):
    """How a picture lies in its array: `order` brings its axes to (stack..., C, Y, X)."""

    order: tuple[int, ...]
    shape: tuple[int, int, int]


def picture_axes(space: Space[Any], key: str = "state") -> Axes | None:
    """Where the axes of a picture are, None if observations of `space` are no pictures.

    Raises for what looks like a picture but does not say where its channels or its bounds are.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3, 4) or 0 in space.shape:
        return None
    axes = _axes(space, key)
    if axes is not None and space.dtype != np.uint8:
        _bounds(space, key)
    return axes


def picture(space: spaces.Box, axes: Axes, key: str, fresh: bool) -> tuple[Space[Any], Convert]:
    """Pictures of `space` as uint8 (C, Y, X): bytes as they are, the rest scaled by its bounds."""
    shape, kind = space.shape, space.dtype.kind
    expected = f"{space.dtype} of shape {shape}"
    as_bytes = _as_bytes(space, key)
    in_place = axes.order == tuple(range(len(shape))) and shape == axes.shape

    def convert(obs: Any) -> np.ndarray:
        given = pixels = as_array(obs, key, expected)
        if pixels.shape != shape or pixels.dtype.kind not in _FITTING[kind]:
            raise misfit(key, expected, obs)
        if space.dtype != np.uint8 or pixels.dtype.char != "B":
            pixels = as_bytes(pixels)
        if not in_place:
            pixels = np.ascontiguousarray(pixels.transpose(axes.order)).reshape(axes.shape)
        # A transpose may need no copy; what is given on must not be the environment's own array.
        return pixels if fresh or not np.may_share_memory(pixels, given) else pixels.copy()

    return spaces.Box(0, 255, axes.shape, np.uint8), convert


# What numbers may stand where the space has floats, signed or unsigned integers, booleans.
_FITTING = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}


def _as_bytes(space: spaces.Box, key: str) -> Callable[[np.ndarray], np.ndarray]:
    """The function that maps the bounds of `space` to 0..255; values beyond them are refused."""
    low, high = (0.0, 255.0) if space.dtype == np.uint8 else _bounds(space, key)
    slack = 1e-6 * (high - low) if space.dtype.kind == "f" else 0.0

    def convert(pixels: np.ndarray) -> np.ndarray:
        least, most = float(pixels.min()), float(pixels.max())
        if not (low - slack <= least and most <= high + slack):
            wrong = most if most > high + slack or most != most else least
            raise EnvFault(
                f"observation {key!r} has a value of {wrong:g}, expected {space.dtype} "
                f"from {low:g} to {high:g}"
            )
        scaled = (pixels.astype(np.float64) - low) * (255.0 / (high - low))
        return np.rint(scaled).clip(0, 255).astype(np.uint8)

    return convert


def _bounds(space: spaces.Box, key: str) -> tuple[float, float]:
    bounded = space.bounded_below.all() and space.bounded_above.all()
    low, high = float(space.low.min()), float(space.high.max())
    if bounded and low < high and np.isfinite(high - low):
        return low, high
    raise EnvError(
        f"Observation {key!r} has the shape of an image, {space.shape}, but {space.dtype} from "
        f"{low:g} to {high:g} does not say which values are black and white: declare bounds in "
        "its Box, or flatten it if it is no image."
    )


def _axes(space: spaces.Box, key: str) -> Axes | None:
    shape = tuple(int(size) for size in space.shape)
    if len(shape) == 2:
        return Axes((0, 1), (1, *shape)) if _grey(space) else None
    *stack, first, middle, last = shape
    n = len(stack)
    if _channels(last, first, middle):
        order, channels, sides = (n + 2, n, n + 1), last, (first, middle)
    elif _channels(first, middle, last):
        order, channels, sides = (n, n + 1, n + 2), first, (middle, last)
    elif sorted((first, middle, last))[1] >= _SMALLEST_SIDE:
        raise EnvError(
            f"Observation {key!r} of shape {shape} is no vector, and no axis of it is the "
            "channels of an image: flatten it, or give the channels as its first or last axis."
        )
    else:
        return None
    plain = not stack and space.dtype == np.uint8 and channels in _CHANNELS
    if min(sides) < _SMALLEST_SIDE and not plain:
        return None
    return Axes((*range(n), *order), ((stack[0] if stack else 1) * channels, *sides))


def _grey(space: spaces.Box) -> bool:
    """Whether rows and columns of numbers are a grey picture, not a matrix."""
    if space.dtype == np.uint8:
        return min(space.shape) >= _SMALLEST_SIDE
    low, high = float(space.low.min()), float(space.high.max())
    return low == 0 and high in _GREY_RANGES and min(space.shape) >= 2 * _SMALLEST_SIDE


def _channels(size: int, *sides: int) -> bool:
    """Whether an axis of `size` beside axes of `sides` is the channels."""
    return size in _CHANNELS or (2 * size <= min(sides) and min(sides) >= _SMALLEST_SIDE)

"""Observations as what a page can show: pixels, bars, and how far two of them are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.specs import TensorSpec

Array = NDArray[Any]
MOST_BARS = 64
"""Numbers of a vector that are drawn."""
MOST_SIDE = 512
"""Pixels; larger pictures are thinned out."""
SAME = 60.0
"""PSNR (dB) of pictures that do not differ."""


def picture(image: Array) -> Array:
    """An image (C, Y, X) as pixels (Y, X, 3); of a stack of frames the newest."""
    channels = image.shape[0]
    newest = image[-3:] if channels % 3 == 0 else np.repeat(image[-1:], 3, 0)
    return thinned(newest.transpose(1, 2, 0))


def thinned(pixels: Array) -> Array:
    """Pixels (Y, X, 3) with sides of at most MOST_SIDE."""
    step = -(-max(pixels.shape[:2]) // MOST_SIDE)
    return np.ascontiguousarray(pixels[::step, ::step])


def bars(obs: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> list[float]:
    """The first numbers of the observations that are no images, one after another."""
    found = [np.ravel(obs[key]) for key, spec in specs.items() if not spec.image and key in obs]
    return numbers(np.concatenate(found)) if found else []


def numbers(values: Array) -> list[float]:
    """The first of `values`, as numbers that JSON has."""
    first = np.nan_to_num(np.ravel(values)[:MOST_BARS].astype(np.float64), posinf=1e9, neginf=-1e9)
    return [round(float(value), 5) for value in first]


def psnr(one: Array, other: Array) -> float:
    """Peak signal-to-noise ratio of two uint8 images, in dB, at most SAME."""
    error = float(np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2))
    return SAME if error == 0 else min(SAME, 10 * math.log10(255**2 / error))


def distance(one: Array, other: Array) -> float:
    """Root of the mean square of the difference."""
    return float(np.sqrt(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)))

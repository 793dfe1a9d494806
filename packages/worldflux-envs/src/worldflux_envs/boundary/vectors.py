"""Numbers and choices as float32 vectors, each step checked against its space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from worldflux.errors import EnvError
from worldflux_envs.boundary.faults import misfit
from worldflux_envs.boundary.finite import all_finite, not_finite

Convert = Callable[[Any], Any]
# Kinds of numbers (numpy's letters) that fit a space of floats, of integers.
_FLOAT32 = np.dtype(np.float32)
_FLOATS, _INTEGERS = "fiub", "iub"


def box_vector(space: spaces.Box, key: str, fresh: bool) -> tuple[Space[Any], Convert]:
    """The numbers of a Box (D,); `fresh`: the environment gives a new array at every step."""
    shape, kinds = space.shape, _FLOATS if space.dtype.kind == "f" else _INTEGERS
    if 0 in shape:
        raise EnvError(f"Observation {key!r} has no numbers: its space is {space}. Leave it out.")
    with np.errstate(over="ignore"):
        low, high = (bound.astype(np.float32).reshape(-1) for bound in (space.low, space.high))
    expected = f"{space.dtype} of shape {shape}"
    flat = shape if len(shape) == 1 and space.dtype.kind == "f" else None

    def convert(obs: Any) -> np.ndarray:
        if type(obs) is np.ndarray and obs.dtype is _FLOAT32 and obs.shape == flat:
            # The usual case: it needs no conversion.
            if not all_finite(obs):
                raise not_finite(f"observation {key!r}", obs)
            return obs if fresh else obs.copy()
        array = as_array(obs, key, expected)
        if array.shape != shape or array.dtype.kind not in kinds:
            raise misfit(key, expected, obs)
        if array.dtype.kind == "f" and not all_finite(array):
            raise not_finite(f"observation {key!r}", array)
        if not fresh or array.dtype.char != "f":
            array = np.array(array, np.float32)
        return array.reshape(-1)

    return spaces.Box(low, high, dtype=np.float32), convert


def choices_vector(space: Space[Any], key: str) -> tuple[Space[Any], Convert]:
    """One-hot vectors of each choice of a Discrete or MultiDiscrete, one after the other."""
    multi = isinstance(space, spaces.MultiDiscrete)
    counts = space.nvec.reshape(-1) if multi else np.array([space.n])  # type: ignore[attr-defined]
    start = np.asarray(space.start).reshape(-1)  # type: ignore[attr-defined]
    offsets, size = np.concatenate([[0], np.cumsum(counts)[:-1]]), int(counts.sum())
    expected = f"indices of {space}" if multi else f"an index of {space}"
    shape = space.shape

    def convert(obs: Any) -> np.ndarray:
        index = as_array(obs, key, expected)
        if index.shape != shape or index.dtype.kind not in _INTEGERS:
            raise misfit(key, expected, obs)
        index = index.reshape(-1).astype(np.int64) - start
        if (index < 0).any() or (index >= counts).any():
            raise misfit(key, expected, np.asarray(obs).tolist())
        vector = np.zeros(size, np.float32)
        vector[index + offsets] = 1.0
        return vector

    return spaces.Box(0.0, 1.0, (size,), np.float32), convert


def binary_vector(space: spaces.MultiBinary, key: str) -> tuple[Space[Any], Convert]:
    """A MultiBinary as zeros and ones."""
    shape, expected = space.shape, f"zeros and ones of shape {space.shape}"

    def convert(obs: Any) -> np.ndarray:
        bits = as_array(obs, key, expected)
        if (
            bits.shape != shape
            or bits.dtype.kind not in _INTEGERS
            or not np.isin(bits, (0, 1)).all()
        ):
            raise misfit(key, expected, obs)
        return bits.reshape(-1).astype(np.float32)

    return spaces.Box(0.0, 1.0, (int(np.prod(shape)),), np.float32), convert


def as_array(obs: Any, key: str, expected: str) -> np.ndarray:
    """`obs` as an array; lists whose rows differ in length are none."""
    if type(obs) is np.ndarray:
        return obs
    try:
        return np.asarray(obs)
    except ValueError as error:
        raise misfit(key, expected, obs) from error

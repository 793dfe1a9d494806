"""Any action space as the contract has it: [-1, 1] or int64 indices from 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from worldflux.errors import EnvError

Convert = Callable[[Any], Any]


def canonical_action(
    space: Space[Any], labels: tuple[str, ...] | None = None
) -> tuple[Space[Any], Convert]:
    """The contract's space for `space`, and the function from its actions to the environment's.

    `labels` name the choices of a Discrete.
    """
    match space:
        case spaces.Box():
            return _box_action(space)
        case spaces.Discrete():
            start = int(space.start)
            return Choices(int(space.n), labels), lambda action: int(action) + start
        case spaces.MultiDiscrete():
            counts, starts = space.nvec.reshape(-1), space.start
            return (
                spaces.MultiDiscrete(counts, dtype=np.int64),
                lambda action: np.asarray(action, space.dtype).reshape(space.shape) + starts,
            )
        case spaces.MultiBinary():
            size = int(np.prod(space.shape))
            return (
                spaces.MultiDiscrete([2] * size),
                lambda action: np.asarray(action, np.int8).reshape(space.shape),
            )
    raise EnvError(
        f"Actions of {space} have no canonical form: use SelectAction for one part of them."
    )


class Choices(spaces.Discrete):
    """A Discrete from 0 whose choices have names, for keyboards and reports; None where unknown."""

    def __init__(self, n: int, labels: tuple[str, ...] | None = None) -> None:
        super().__init__(n)
        self.labels = labels


def labels_of(env: Any, space: Space[Any]) -> tuple[str, ...] | None:
    """The names of a Discrete's choices, where its space or its environment tells them.

    `get_action_meanings()` is how ALE's environments tell them.
    """
    labels = getattr(space, "labels", None)
    if labels is None and callable(tell := getattr(env, "get_action_meanings", None)):
        labels = tell()
    if labels is None or not isinstance(space, spaces.Discrete) or len(labels) != space.n:
        return None
    return tuple(str(label) for label in labels)


def _box_action(space: spaces.Box) -> tuple[Space[Any], Convert]:
    """[-1, 1] clipped, then stretched to the bounds of each number."""
    if 0 in space.shape:
        raise EnvError(f"There is no action to choose: the action space is {space}.")
    unit = spaces.Box(-1.0, 1.0, (int(np.prod(space.shape)),), np.float32)
    shape, dtype = space.shape, space.dtype
    scale = _integers(space) if dtype.kind in "iub" else _numbers(space)
    # As float64 arrays, not numbers: the result is float64 whatever comes in, at half the cost.
    least, most = np.full(unit.shape, -1.0), np.full(unit.shape, 1.0)
    if scale is None:
        return unit, lambda action: np.minimum(np.maximum(action, least), most)
    stretch = scale

    def convert(action: Any) -> np.ndarray:
        within = np.minimum(np.maximum(np.asarray(action).reshape(-1), least), most)
        return stretch(within).astype(dtype, copy=False).reshape(shape)

    return unit, convert


def _numbers(space: spaces.Box) -> Convert | None:
    """[-1, 1] to the bounds, in a line; None where that is the identity.

    Without any bound a number is taken as it is. With one bound, -1 (or 1) is the bound and the
    distance from it grows as 10^(1 + u) - 1, from 0 over 9 to 99: an infinite side has no scale, so
    small steps near the bound and large ones far from it can both be had, and nothing is executed
    that lies outside the space.
    """
    low, high = (bound.astype(np.float64).reshape(-1) for bound in (space.low, space.high))
    below, above = np.isfinite(low), np.isfinite(high)
    from_low, from_high = below & ~above, above & ~below
    bounded = below & above
    least, most = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    middle, half = most / 2 + least / 2, most / 2 - least / 2
    dtype = space.dtype
    if bounded.all() or not (below | above).any():
        plain = dtype == np.float64 and np.all(middle == 0) and np.all(half == 1)
        if plain and len(space.shape) == 1:
            return None
        # The bounds again: rounding to the environment's type may step over them.
        lowest, highest = least.astype(dtype), most.astype(dtype)
        return lambda u: np.minimum(np.maximum((middle + u * half).astype(dtype), lowest), highest)

    def stretch(u: np.ndarray) -> np.ndarray:
        value = middle + u * half
        value = np.where(from_low, low + _distance(u), value)
        value = np.where(from_high, high - _distance(-u), value)
        return np.clip(value.astype(dtype), low, high)

    return stretch


def _distance(u: np.ndarray) -> np.ndarray:
    """How far from the one bound: 0 at u = -1, 9 at 0, 99 at 1."""
    return 10.0 ** (1.0 + u) - 1.0


def _integers(space: spaces.Box) -> Convert:
    """[-1, 1] in as many equal parts as there are integers; sides without bound as for numbers."""
    low, high = (bound.astype(np.float64).reshape(-1) for bound in (space.low, space.high))
    below, above = space.bounded_below.reshape(-1), space.bounded_above.reshape(-1)
    least, most = np.where(below, low, -1.0), np.where(above, high, 1.0)
    parts, one_sided = most - least + 1, below ^ above
    lowest, highest = _integer_range(space.dtype)

    def stretch(u: np.ndarray) -> np.ndarray:
        value = least + np.minimum(np.floor((u + 1) / 2 * parts), parts - 1)
        if one_sided.any():
            far = np.where(below, low + _distance(u), high - _distance(-u))
            value = np.where(one_sided, np.rint(far), value)
        whole = np.clip(value, lowest, highest).astype(space.dtype)
        # The bounds again: integers beyond 2^53 have no float64 of their own.
        return np.clip(whole, space.low.reshape(-1), space.high.reshape(-1))

    return stretch


def _integer_range(dtype: Any) -> tuple[float, float]:
    """The least and largest float64 that an integer type can hold."""
    if dtype.kind == "b":
        return 0.0, 1.0
    least, most = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    # int64's own largest has no float64; the next larger one would become negative.
    return least, most if most < 2.0**53 else float(np.nextafter(most, 0))

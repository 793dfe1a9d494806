"""Any Gymnasium space as the contract has it: Dict observations, actions in [-1, 1] or int64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from worldflux.errors import EnvError

Convert = Callable[[Any], Any]

GOAL_KEYS = {"observation": "state", "achieved_goal": "achieved_goal", "desired_goal": "goal"}
_CHANNELS = (1, 3, 4)
_SMALLEST_GREY = 16


def canonical_observation(space: Space[Any]) -> tuple[spaces.Dict, Convert]:
    """The Dict space for `space`, and the function that turns its observations into it."""
    leaves = _leaves(space)
    parts = {key: (path, *_leaf(leaf, key)) for key, path, leaf in leaves}
    if len(parts) != len(leaves):
        raise EnvError(f"Two observations share one key: {[key for key, _, _ in leaves]}.")
    canonical = spaces.Dict({key: leaf for key, (_, leaf, _) in parts.items()})
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        [(key, (_, _, convert))] = parts.items()
        return canonical, lambda obs: {key: convert(obs)}
    steps = [(key, path, convert) for key, (path, _, convert) in parts.items()]
    return canonical, lambda obs: {key: convert(_pick(obs, path)) for key, path, convert in steps}


def canonical_action(space: Space[Any]) -> tuple[Space[Any], Convert]:
    """The contract's space for `space`, and the function from its actions to the environment's."""
    match space:
        case spaces.Box():
            return _box_action(space)
        case spaces.Discrete():
            start = int(space.start)
            return spaces.Discrete(int(space.n)), lambda action: int(action) + start
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


def image_axes(space: Space[Any]) -> str | None:
    """`"CYX"`, `"YXC"` or `"YX"` if observations of `space` are images, else None."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return None
    if len(space.shape) == 3 and space.shape[-1] in _CHANNELS:
        return "YXC"
    if len(space.shape) == 3 and space.shape[0] in _CHANNELS:
        return "CYX"
    return "YX" if len(space.shape) == 2 and min(space.shape) >= _SMALLEST_GREY else None


def _leaves(space: Space[Any]) -> list[tuple[str, tuple[Any, ...], Space[Any]]]:
    """(key, path, space) of every leaf: a nested key joins its parents' by underscores."""
    parts: list[tuple[str, Any, Space[Any]]]
    match space:
        case spaces.Dict():
            named = GOAL_KEYS if set(space.spaces) == set(GOAL_KEYS) else {}
            parts = [(named.get(key, str(key)), key, part) for key, part in space.spaces.items()]
        case spaces.Tuple():
            parts = [(str(index), index, part) for index, part in enumerate(space.spaces)]
        case _:
            return [("image" if image_axes(space) else "state", (), space)]
    found = []
    for name, step, part in parts:
        if not isinstance(part, spaces.Dict | spaces.Tuple):
            found.append((name, (step,), part))
            continue
        found += [(f"{name}_{key}", (step, *path), leaf) for key, path, leaf in _leaves(part)]
    return found


def _pick(obs: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        obs = obs[step]
    return obs


def _leaf(space: Space[Any], key: str) -> tuple[Space[Any], Convert]:
    match space:
        case spaces.Box():
            return _image(space) if image_axes(space) else _vector(space)
        case spaces.Discrete():
            return _one_hot(np.array([space.n]), np.array([space.start]))
        case spaces.MultiDiscrete():
            return _one_hot(space.nvec.reshape(-1), space.start.reshape(-1))
        case spaces.MultiBinary():
            return _vector(spaces.Box(0.0, 1.0, space.shape))
    raise EnvError(f"Observation {key!r} of {space} has no canonical form: wrap the environment.")


def _vector(space: spaces.Box) -> tuple[Space[Any], Convert]:
    with np.errstate(over="ignore"):
        low, high = (bound.astype(np.float32).reshape(-1) for bound in (space.low, space.high))
    canonical = spaces.Box(low, high, dtype=np.float32)
    if len(space.shape) == 1:
        return canonical, lambda obs: np.array(obs, np.float32)
    return canonical, lambda obs: np.array(obs, np.float32).reshape(-1)


def _image(space: spaces.Box) -> tuple[Space[Any], Convert]:
    axes = image_axes(space)
    if axes == "CYX":
        return spaces.Box(0, 255, space.shape, np.uint8), lambda obs: np.array(obs)
    if axes == "YX":
        return spaces.Box(0, 255, (1, *space.shape), np.uint8), lambda obs: np.array(obs)[None]
    rows, columns, channels = space.shape
    canonical = spaces.Box(0, 255, (channels, rows, columns), np.uint8)
    return canonical, lambda obs: np.asarray(obs).transpose(2, 0, 1).copy()


def _one_hot(counts: np.ndarray, start: np.ndarray) -> tuple[Space[Any], Convert]:
    """One-hot vectors of each choice, one after the other."""
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]) - start
    size = int(counts.sum())

    def convert(obs: Any) -> np.ndarray:
        vector = np.zeros(size, np.float32)
        vector[np.asarray(obs).reshape(-1) + offsets] = 1.0
        return vector

    return spaces.Box(0.0, 1.0, (size,), np.float32), convert


def _box_action(space: spaces.Box) -> tuple[Space[Any], Convert]:
    """[-1, 1] clipped and rescaled to the bounds; an unbounded side is taken as -1 or 1."""
    shape, dtype = space.shape, space.dtype
    low = np.where(np.isfinite(space.low), space.low, -1.0).astype(np.float64).reshape(-1)
    high = np.where(np.isfinite(space.high), space.high, 1.0).astype(np.float64).reshape(-1)
    middle, half = (high + low) / 2, (high - low) / 2
    lowest, highest = low.astype(dtype), high.astype(dtype)
    # As float64 arrays, not numbers: the result is float64 whatever comes in, at half the cost.
    least, most = np.full_like(low, -1.0), np.full_like(low, 1.0)
    if dtype == np.float64 and np.all(middle == 0) and np.all(half == 1) and len(shape) == 1:
        return (
            spaces.Box(-1.0, 1.0, shape, np.float32),
            lambda action: np.minimum(np.maximum(action, least), most),
        )

    def convert(action: Any) -> np.ndarray:
        unit = np.minimum(np.maximum(np.asarray(action).reshape(-1), least), most)
        # The bounds again: rounding to the environment's type may step over them.
        scaled = (middle + unit * half).astype(dtype)
        return np.minimum(np.maximum(scaled, lowest), highest).reshape(shape)

    return spaces.Box(-1.0, 1.0, low.shape, np.float32), convert

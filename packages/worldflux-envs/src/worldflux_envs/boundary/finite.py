"""Whether numbers are finite as float32, which is how they are stored and learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from worldflux.errors import EnvError
from worldflux_envs.boundary.faults import EnvFault, described

LARGEST = float(np.finfo(np.float32).max)
_LARGEST_SQUARE = LARGEST**2


def all_finite(values: np.ndarray) -> bool:
    """Whether every number of `values`, an array of floats, is finite as float32."""
    if values.dtype.char in "fe":
        return b"\0" not in np.isfinite(values).tobytes()
    flat = values.reshape(-1)
    # A sum of squares this small has no large term, and nothing that is not a number.
    if values.dtype.char == "d" and flat.dot(flat) <= _LARGEST_SQUARE:
        return True
    return bool((np.abs(values) <= LARGEST).all())


def first_unfit(values: np.ndarray) -> tuple[tuple[int, ...], Any]:
    """Index and value of the first number that is not finite as float32."""
    where = np.argwhere(~(np.abs(values) <= LARGEST))[0]
    index = tuple(int(i) for i in where)
    return index, values[index]


def check_rows(
    rewards: np.ndarray, obs: Mapping[str, np.ndarray], where: Callable[[int], str]
) -> None:
    """Stop where a reward (N,) or an observation (N, ...) is not finite; `where` names a row."""
    for name, values in [("reward", rewards), *((f"observation {k!r}", x) for k, x in obs.items())]:
        if values.dtype.kind == "f" and not all_finite(values):
            (i, *_), _ = first_unfit(values)
            raise EnvFault(f"{where(i)}: {not_finite(name, values[i])}.")


def check_actions(actions: Any, where: Callable[[int], str]) -> None:
    """Stop before an action that is not finite, of actions (N, ...), reaches an environment."""
    values = np.asarray(actions)
    if values.dtype.kind == "f" and not all_finite(values):
        (i, *_), _ = first_unfit(values)
        raise EnvError(
            f"{where(i)}: {not_finite('the action', values[i])}: "
            "the agent gave it, the environment was not stepped."
        )


def not_finite(name: str, values: Any) -> EnvFault:
    """The fault of `name`, whose `values` have a number that is not finite as float32."""
    index, value = first_unfit(np.asarray(values))
    place = f"[{', '.join(map(str, index))}]" if index else ""
    return EnvFault(f"{name}{place} is {float(value)!r}, expected a finite float32")


def as_reward(value: Any) -> float:
    """One finite number, or the fault."""
    if type(value) is not float:
        value = _number(value)
    if not -LARGEST <= value <= LARGEST:
        raise not_finite("reward", np.float64(value))
    return value


def _number(value: Any) -> float:
    integer = isinstance(value, int)  # Python's own, of any size
    if np.ndim(value) or not (integer or np.asarray(value).dtype.kind in "fiub"):
        raise EnvFault(f"reward is {described(value)}, expected a number")
    try:
        return float(value)
    except OverflowError:
        return float("inf")

"""Faults of an environment against its own spaces: they stop a run, for a restart cannot help."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldflux.errors import EnvError


class EnvFault(EnvError):
    """An environment gave what does not fit its own spaces or Gymnasium's interface."""


def misfit(key: str, expected: str, value: Any) -> EnvFault:
    """The fault of observation `key`: what its space says, and what came."""
    return EnvFault(f"observation {key!r} is {described(value)}, expected {expected}")


def described(value: Any) -> str:
    """A value by what can be wrong with it: its type, its shape, itself if it is a number."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    if value is None or isinstance(value, str | bytes | dict):
        return "None" if value is None else f"a {type(value).__name__}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {value!r}"

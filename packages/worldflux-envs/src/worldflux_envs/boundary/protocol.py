"""Gymnasium's `reset` and `step` as they must answer: two values, five values."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import gymnasium
import numpy as np

from worldflux_envs.boundary.faults import EnvFault, described

_FIVE = "expected 5: obs, reward, terminated, truncated, info"
_OLD = " (the four of the old Gym: say whether its `done` is an end or a time limit)"


def started(env: gymnasium.Env[Any, Any], **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """What `env.reset` gives, if it is an observation and an info."""
    result = env.reset(**kwargs)
    if type(result) is not tuple or len(result) != 2 or not isinstance(result[1], dict):
        raise EnvFault("reset gave an observation without info, expected (obs, info)")
    return result


def stepped(
    env: gymnasium.Env[Any, Any], action: Any
) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
    """What `env.step` gives, if it is Gymnasium's five values with true or false ends."""
    try:
        result = env.step(action)
    except ValueError as error:
        if "to unpack" in str(error) and _in_gymnasium(error.__traceback__):
            raise EnvFault(f"step did not give 5 values, {_FIVE}{_OLD}") from error
        raise
    if type(result) is not tuple or len(result) != 5:
        count = len(result) if isinstance(result, tuple) else 1
        raise EnvFault(f"step gave {count} values, {_FIVE}{_OLD if count == 4 else ''}")
    obs, reward, terminated, truncated, info = result
    if type(terminated) is not bool or type(truncated) is not bool:
        terminated, truncated = _flag("terminated", terminated), _flag("truncated", truncated)
    if not isinstance(info, dict):
        raise EnvFault(f"info is {described(info)}, expected a dict")
    return obs, reward, terminated, truncated, info


def _flag(name: str, value: Any) -> bool:
    if np.ndim(value) or np.asarray(value).dtype.kind not in "biu" or value not in (0, 1):
        raise EnvFault(f"{name} is {described(value)}, expected True or False")
    return bool(value)


def _in_gymnasium(trace: TracebackType | None) -> bool:
    """Whether the error was raised by one of Gymnasium's wrappers, not by the environment."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return name.startswith("gymnasium.")

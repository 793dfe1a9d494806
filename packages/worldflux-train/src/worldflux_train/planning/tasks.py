"""Where an episode starts and what its goal is: the environment's own, or one some steps away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from worldflux.errors import CapabilityError
from worldflux_train.seeding import derived

HOLD = 5
"""Steps that an action of the random walk to a goal lasts."""
_ABLE = ("get_state", "set_state", "set_goal", "observation")


def begin(env: Any, seed: int, offset: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first observation and info of an episode.

    With an `offset` its goal is where a random walk is that many steps after the start, and the
    start is somewhere on that walk. `CapabilityError` where the environment cannot be given goals.
    """
    obs, info = env.reset(seed=seed)
    if offset is None:
        return dict(obs), dict(info)
    inner = env.unwrapped
    lacks = [name for name in _ABLE if not hasattr(inner, name)]
    if lacks:
        raise CapabilityError(
            f"{type(inner).__name__} cannot be given a goal: it has no {', '.join(lacks)}. Leave "
            "out --goal-offset, and the goal is the environment's own."
        )
    random = np.random.default_rng(derived(seed, "walk"))
    _walk(env, random, int(random.integers(0, 1 + offset)))
    start = inner.get_state()
    _walk(env, random, offset)
    goal = inner.get_state()
    inner.set_state(start)
    inner.set_goal(goal)
    told: dict[str, Any] = getattr(inner, "info", dict)()
    return dict(inner.observation()), dict(told)


def _walk(env: Any, random: np.random.Generator, steps: int) -> None:
    """Random actions, each held for a while; ends of episodes are walked past."""
    space, action = env.action_space, None
    for step in range(steps):
        if step % HOLD == 0 or action is None:
            space.seed(int(random.integers(2**31)))
            action = space.sample()
        env.unwrapped.step(action)


def goal_picture(obs: Mapping[str, Any]) -> np.ndarray | None:
    """The goal as a picture (Y, X, 3), where an observation shows one."""
    goal = obs.get("goal")
    if goal is None or np.ndim(goal) != 3 or np.asarray(goal).dtype != np.uint8:
        return None
    picture = np.asarray(goal).transpose(1, 2, 0)
    return picture if picture.shape[2] == 3 else picture[..., :1].repeat(3, 2)


def succeeded(
    obs: Mapping[str, Any], info: Mapping[str, Any], reward: float, terminated: bool
) -> bool | None:
    """Whether this step achieved the goal, as the environment tells: None where it tells nothing.

    Its `info` tells ("success" or "is_success"); with a goal among the observations a rewarded end
    does.
    """
    for name in ("success", "is_success"):
        if name in info:
            return bool(info[name])
    return bool(terminated and reward > 0) if "goal" in obs else None

"""The conformance checks of an environment: ours on top of Gymnasium's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Make = Callable[[], Any]


def check_env(
    make: Make, *, steps: int = 50, limit: int = 1500, fixed_length: bool = False
) -> list[str]:
    """Run every check on environments from `make()`; return their names.

    `limit` is the most steps spent on looking for a time limit. `fixed_length` says that the task
    itself ends after a fixed number of steps, so that this is no time limit. Raises
    `AssertionError` naming the first check that fails. Needs gymnasium.
    """
    ran = []
    checks = CHECKS
    if not fixed_length:
        checks = (*CHECKS, partial(check_time_limit, limit=limit))
    for check in checks:
        env = make()
        try:
            check(env, steps)
        except AssertionError as error:
            raise AssertionError(f"{_name(check)}: {error}") from error
        finally:
            env.close()
        ran.append(_name(check))
    return ran


def _name(check: Any) -> str:
    return str(getattr(check, "func", check).__name__)


def check_spaces(env: Any, steps: int) -> None:
    """Observations are a Dict; images uint8 (C, Y, X); actions in [-1, 1] or int64 choices."""
    from gymnasium import spaces

    space = env.observation_space
    assert isinstance(space, spaces.Dict), f"observation space is {type(space).__name__}, not Dict"
    for key, part in space.items():
        shape = part.shape or ()
        if len(shape) == 3:
            assert part.dtype == np.uint8, f"image {key!r} is {part.dtype}, not uint8"
            assert shape[0] in (1, 2, 3, 4, 6, 9, 12), (
                f"image {key!r} has shape {shape}: expected (C, Y, X)"
            )
    action = env.action_space
    if isinstance(action, spaces.Box):
        bounded = bool(np.all(action.low == -1) and np.all(action.high == 1))
        assert bounded, f"actions are in [{action.low.min()}, {action.high.max()}], not [-1, 1]"
    else:
        discrete = isinstance(action, (spaces.Discrete, spaces.MultiDiscrete))
        assert discrete, f"action space is {type(action).__name__}"
        starts = np.asarray(getattr(action, "start", 0))
        assert not starts.any(), f"discrete actions must start at 0, not {starts}"


def check_gymnasium(env: Any, steps: int) -> None:
    """Gymnasium's own checker passes."""
    from gymnasium.utils.env_checker import check_env as gymnasium_check

    try:
        gymnasium_check(env, skip_render_check=True)
    except AssertionError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise AssertionError(str(error)) from error


def check_steps(env: Any, steps: int) -> None:
    """Every observation is in the space, rewards are finite, flags are plain bools."""
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        assert env.observation_space.contains(obs), f"observation outside the space: {_shapes(obs)}"
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert np.isfinite(reward), f"reward is {reward}"
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            assert isinstance(flag, (bool, np.bool_)), f"{name} is {type(flag).__name__}, not bool"
        if terminated or truncated:
            obs, _ = env.reset()


def check_time_limit(env: Any, steps: int, limit: int = 1500) -> None:
    """Episodes do not all terminate after the same number of steps: that is a time limit."""
    env.action_space.seed(0)
    lengths: list[int] = []
    left = limit
    for episode in range(_EPISODES):
        env.reset(seed=episode)
        terminated, truncated, length = False, False, 0
        while not (terminated or truncated):
            if left == 0:
                return
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            length, left = length + 1, left - 1
        if truncated or length < _SHORT or {*lengths, length} != {length}:
            return
        lengths.append(length)
    raise AssertionError(
        f"{len(lengths)} episodes with other seeds and actions all terminated after "
        f"{lengths[0]} steps: a time limit is truncated, not terminated (a model learns "
        "terminated as the end of all reward). If the task itself ends then, say "
        "check_env(..., fixed_length=True)."
    )


# Episodes shorter than this often end at the same step by chance.
_SHORT = 5
_EPISODES = 5


def check_seeds(env: Any, steps: int) -> None:
    """The same seed and actions give the same episode; another seed is allowed to differ."""
    first, second = (_episode(env, steps) for _ in range(2))
    assert len(first) == len(second), f"episodes of {len(first)} and {len(second)} steps"
    for t, (left, right) in enumerate(zip(first, second, strict=True)):
        assert left.keys() == right.keys(), f"step {t}: keys differ"
        for key, value in left.items():
            same = np.array_equal(value, right[key])
            assert same, f"step {t}: {key!r} differs between two runs with the same seed"


def _episode(env: Any, steps: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    obs, _ = env.reset(seed=3)
    env.action_space.seed(3)
    rows = [_copied(obs, 0.0)]
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        rows.append(_copied(obs, reward))
        if terminated or truncated:
            break
    return rows


def _copied(obs: dict[str, Any], reward: float) -> dict[str, np.ndarray[Any, Any]]:
    return {**{key: np.array(value) for key, value in obs.items()}, "reward": np.array(reward)}


def _shapes(obs: Any) -> str:
    if not isinstance(obs, dict):
        return type(obs).__name__
    return ", ".join(f"{key}: {np.asarray(x).dtype}{np.shape(x)}" for key, x in obs.items())


CHECKS: tuple[Callable[[Any, int], None], ...] = (
    check_spaces,
    check_steps,
    check_seeds,
    check_gymnasium,
)

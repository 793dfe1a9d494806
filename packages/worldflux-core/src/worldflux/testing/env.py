"""The conformance checks of an environment: ours on top of Gymnasium's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Make = Callable[[], Any]


def check_env(make: Make, *, steps: int = 50) -> list[str]:
    """Run every check on environments from `make()`; return their names.

    Raises `AssertionError` naming the first check that fails. Needs gymnasium.
    """
    ran = []
    for check in CHECKS:
        env = make()
        try:
            check(env, steps)
        except AssertionError as error:
            raise AssertionError(f"{check.__name__}: {error}") from error
        finally:
            env.close()
        ran.append(check.__name__)
    return ran


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

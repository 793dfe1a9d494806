"""Which vectorisation pays: measured on the environment itself."""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from worldflux.errors import EnvError, did_you_mean
from worldflux_envs.vector.sync import SyncVec

log = logging.getLogger(__name__)
MODES = ("auto", "sync", "async", "native")
# What a round trip to a worker process costs, measured: see benchmarks/bench_envs.py.
ROUND_TRIP = 150e-6
_PROBE_SECONDS = 0.05
_PROBE_STEPS = 50


def make_vec(
    make: Callable[..., gymnasium.Env[Any, Any]],
    task: Any,
    num_envs: int = 1,
    *,
    name: str,
    mode: str = "auto",
    workers: int | None = None,
    timeout: float = 60.0,
    copy: bool = True,
    seed: int | None = None,
    native: Callable[..., VectorEnv[Any, Any, Any]] | None = None,
    **options: Any,
) -> VectorEnv[Any, Any, Any]:
    """`num_envs` environments `make(task, **options)` behind one `VectorEnv`."""
    if mode not in MODES:
        raise EnvError(
            f"mode={mode!r} is not one of {', '.join(MODES)}.{did_you_mean(mode, MODES)}"
        )
    if num_envs < 1:
        raise EnvError(f"num_envs must be at least 1, got {num_envs}.")
    label = f"{name}/{task if isinstance(task, str) else getattr(task, '__name__', task)}"
    if native is not None and mode in ("auto", "native"):
        return native(task, num_envs, copy=copy, seed=seed, **options)
    if mode == "native":
        raise EnvError(f"{label} has no native vectorisation: use mode='sync' or 'async'.")
    if isinstance(task, gymnasium.Env) and (num_envs > 1 or mode == "async"):
        raise EnvError("One environment object is one environment: give an id or a callable.")
    build = partial(make, task, **options)
    first = None
    if mode == "auto":
        first = build()
        mode = choose(step_cost(first), num_envs, os.cpu_count() or 1)
        log.info("%s: %d environments, mode %s", label, num_envs, mode)
    if mode == "sync":
        return SyncVec(build, num_envs, name=label, first=first, copy=copy, seed=seed)
    from worldflux_envs.vector.processes import AsyncVec

    if first is not None:
        first.close()
    return AsyncVec(
        build, num_envs, name=label, workers=workers, timeout=timeout, copy=copy, seed=seed
    )


def choose(cost: float, num_envs: int, cores: int) -> str:
    """`sync` or `async`, by the seconds one step costs."""
    workers = min(num_envs, cores)
    together = cost * num_envs
    apart = cost * -(-num_envs // workers) + ROUND_TRIP * workers
    return "async" if apart < 0.8 * together else "sync"


def step_cost(env: gymnasium.Env[Any, Any]) -> float:
    """Seconds of the median step with random actions."""
    env.reset(seed=0)
    env.action_space.seed(0)
    seconds: list[float] = []
    while len(seconds) < _PROBE_STEPS and sum(seconds) < _PROBE_SECONDS:
        action = env.action_space.sample()
        start = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        seconds.append(time.perf_counter() - start)
        if terminated or truncated:
            env.reset()
    return statistics.median(seconds)

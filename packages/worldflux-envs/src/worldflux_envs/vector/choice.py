"""Which vectorisation pays: measured on the environment itself."""

from __future__ import annotations

import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Collection
from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from worldflux.errors import EnvError, did_you_mean
from worldflux_envs.vector.faults import starting
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
    trial: int = 64,
    not_native: Collection[str] = (),
    **options: Any,
) -> VectorEnv[Any, Any, Any]:
    """`num_envs` environments `make(task, **options)` behind one `VectorEnv`.

    `auto` tries `native` with up to `trial` rows, more of which cost in proportion or less; with
    `trial=0` it takes it untried, where trying costs more than it can save. `not_native` names
    options that stand in the way of `native`, which is None then.
    """
    label = f"{name}/{task if isinstance(task, str) else getattr(task, '__name__', task)}"
    _check(label, task, num_envs, mode, native is not None, not_native)
    build = partial(make, task, **options)
    with starting(label):
        return _made(
            build, label, num_envs, mode, workers=workers, timeout=timeout, copy=copy, seed=seed,
            batch=native and partial(native, task, copy=copy, seed=seed, **options), trial=trial,
        )  # fmt: skip


def _made(
    build: Callable[[], gymnasium.Env[Any, Any]],
    label: str,
    num_envs: int,
    mode: str,
    *,
    workers: int | None,
    timeout: float,
    copy: bool,
    seed: int | None,
    batch: Callable[[int], VectorEnv[Any, Any, Any]] | None,
    trial: int,
) -> VectorEnv[Any, Any, Any]:
    """The vector environment, in the mode that is asked for or pays."""
    first = None
    if mode == "auto":
        # One environment can only be stepped by itself.
        mode = "sync" if batch is None else "native"
        if num_envs > 1 and (batch is None or trial):
            first = build()
            count = workers or os.cpu_count() or 1
            costs = step_costs(first, batch, num_envs, workers=count, trial=trial)
            mode = choose(costs)
            milliseconds = ", ".join(f"{key} {1e3 * cost:.3g}" for key, cost in costs.items())
            log.info("%s: %d environments, mode %s (ms: %s)", label, num_envs, mode, milliseconds)
    if mode == "native":
        if first is not None:
            first.close()
        assert batch is not None
        return batch(num_envs)
    if mode == "async":
        vec = _in_processes(
            build, num_envs, optional=first is not None, name=label, workers=workers,
            timeout=timeout, copy=copy, seed=seed,
        )  # fmt: skip
        if vec is not None:
            if first is not None:
                first.close()
            return vec
    return SyncVec(build, num_envs, name=label, first=first, copy=copy, seed=seed)


def _in_processes(
    build: Callable[[], gymnasium.Env[Any, Any]], num_envs: int, *, optional: bool, **options: Any
) -> VectorEnv[Any, Any, Any] | None:
    """The vector in worker processes; None, with the reason logged, where `optional` ones fail."""
    from worldflux_envs.vector.processes import AsyncVec, NotSendableError

    vec, reason = None, None
    try:
        vec = AsyncVec(build, num_envs, **options)
        reason = vec.problem() if optional else None
    except NotSendableError as error:
        if not optional:
            raise
        reason = str(error)
    if reason is None:
        return vec
    if vec is not None:
        vec.close()
    log.warning(
        "%s: worker processes would be faster, but cannot make it: %s It is stepped in this "
        "process (mode sync).", options["name"], reason,
    )  # fmt: skip
    return None


def choose(costs: dict[str, float]) -> str:
    """The cheapest mode; of two that are about as cheap the one without processes."""
    sync, native = costs["sync"], costs.get("native", math.inf)
    best, margin = ("native", 0.4) if native < 1.25 * sync else ("sync", 0.8)
    # `async` is computed, for cores that are idle; against two that are measured it has to be
    # clearly cheaper, far cheaper where `native` may use all cores already.
    return "async" if costs["async"] < margin * costs[best] else best


def step_costs(
    env: gymnasium.Env[Any, Any],
    native: Callable[[int], VectorEnv[Any, Any, Any]] | None,
    num_envs: int,
    *,
    workers: int,
    trial: int,
) -> dict[str, float]:
    """Seconds of one step of all `num_envs` in each mode; `native` by that of `trial` rows."""
    costs = {}
    if native is not None:
        rows = min(num_envs, trial)
        vec = native(rows)
        costs["native"] = vector_step_cost(vec) * num_envs / rows
        vec.close()
    one, workers = step_cost(env), min(num_envs, workers)
    costs["sync"] = one * num_envs
    costs["async"] = one * -(-num_envs // workers) + ROUND_TRIP * workers
    return costs


def step_cost(env: gymnasium.Env[Any, Any]) -> float:
    """Seconds of the median step with random actions."""
    actions = deepcopy(env.action_space)  # the caller's own draws are not to change
    actions.seed(0)
    env.reset(seed=0)
    seconds: list[float] = []
    while len(seconds) < _PROBE_STEPS and sum(seconds) < _PROBE_SECONDS:
        action = actions.sample()
        start = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        seconds.append(time.perf_counter() - start)
        if terminated or truncated:
            env.reset()
    return statistics.median(seconds)


def vector_step_cost(vec: VectorEnv[Any, Any, Any]) -> float:
    """Seconds of the median step of all of `vec` together."""
    vec.reset(seed=0)
    vec.action_space.seed(0)
    seconds: list[float] = []
    while len(seconds) < _PROBE_STEPS and sum(seconds) < _PROBE_SECONDS:
        actions = vec.action_space.sample()
        start = time.perf_counter()
        vec.step(actions)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _check(
    label: str, task: Any, num_envs: int, mode: str, native: bool, in_the_way: Collection[str]
) -> None:
    if mode not in MODES:
        raise EnvError(
            f"mode={mode!r} is not one of {', '.join(MODES)}.{did_you_mean(mode, MODES)}"
        )
    if num_envs < 1:
        raise EnvError(f"num_envs must be at least 1, got {num_envs}.")
    if mode == "native" and in_the_way:
        raise EnvError(
            f"{label} is vectorised natively only without {', '.join(sorted(in_the_way))}: leave "
            "that out, or use mode='sync' or 'async'."
        )
    if mode == "native" and not native:
        raise EnvError(f"{label} has no native vectorisation: use mode='sync' or 'async'.")
    if isinstance(task, gymnasium.Env) and (num_envs > 1 or mode == "async"):
        raise EnvError("One environment object is one environment: give an id or a callable.")

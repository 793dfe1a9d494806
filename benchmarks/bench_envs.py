"""Environment steps per second by backend and mode, beside Gymnasium's; the cost of our wrapping.

`steps_per_second` is wall time over all environments; `cpu_us` is this process's CPU time per
environment step (worker processes are not in it). An overhead is what the calling thread does more
than with the bare simulator, in per cent of all CPU time the bare one takes.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

COUNTS = (1, 8, 32)
SECONDS = 0.6
TURNS = 100


def rows() -> list[dict[str, Any]]:
    """One row per environment, mode and number, then the overheads."""
    found = []
    for label, num_envs, build in _cases():
        vec = build()
        try:
            found.append({"name": f"{label} x{num_envs}", **_speed(vec, num_envs)})
        finally:
            vec.close()
    return found + list(_overheads())


def _cases() -> Iterator[tuple[str, int, Callable[[], Any]]]:
    import gymnasium

    from worldflux.factory import make_vec_env

    for num_envs in COUNTS:
        for mode in ("sync", "async"):
            yield (
                f"gym/CartPole-v1 {mode}",
                num_envs,
                lambda n=num_envs, m=mode: make_vec_env("gym/CartPole-v1", n, mode=m),
            )
            yield (
                f"gymnasium CartPole-v1 {mode}",
                num_envs,
                lambda n=num_envs, m=mode: gymnasium.make_vec(
                    "CartPole-v1", n, vectorization_mode=m
                ),
            )
        if _installed("ale_py"):
            for mode in ("sync", "async", "native"):
                yield (
                    f"atari/Pong {mode}",
                    num_envs,
                    lambda n=num_envs, m=mode: make_vec_env("atari/Pong", n, mode=m),
                )
            yield "ale_py AtariVectorEnv Pong", num_envs, lambda n=num_envs: _ale(n)
        if _installed("dm_control"):
            for mode in ("sync", "async"):
                yield (
                    f"dmc/walker-walk {mode}",
                    num_envs,
                    lambda n=num_envs, m=mode: make_vec_env("dmc/walker-walk", n, mode=m),
                )


def _speed(vec: Any, num_envs: int) -> dict[str, float]:
    vec.reset(seed=0)
    vec.action_space.seed(0)
    actions = [vec.action_space.sample() for _ in range(50)]
    for action in actions[:5]:
        vec.step(action)
    steps, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < SECONDS:
        vec.step(actions[steps % 50])
        steps += 1
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"steps_per_second": num_envs * steps / wall, "cpu_us": 1e6 * cpu / (num_envs * steps)}


def _overheads() -> Iterator[dict[str, Any]]:
    """Ours against the bare simulator: one environment, the same episode, the same actions."""
    if _installed("ale_py"):
        from worldflux_envs.backends import atari

        ours, bare = atari.make("Pong"), _ale(1)
        move = np.zeros(1, np.int64)
        yield _overhead(
            "atari/Pong",
            (lambda: ours.reset(seed=0), lambda: ours.step(0)),
            (lambda: bare.reset(seed=0), lambda: bare.step(move)),
        )
    if _installed("dm_control"):
        yield _dmc_overhead("walker-walk", {})
        yield _dmc_overhead("humanoid-walk", {})
        yield _dmc_overhead("walker-walk", {"obs": "pixels"})


def _dmc_overhead(task: str, options: dict[str, Any]) -> dict[str, Any]:
    from worldflux_envs.backends import dmc

    ours = dmc.make(task, **options)
    from dm_control import suite  # after the way to render was chosen

    bare = suite.load(*task.split("-"))
    action = np.zeros(ours.action_space.shape, np.float32)

    def bare_reset() -> None:
        bare.task._random = np.random.RandomState(0)
        bare.reset()

    def bare_step() -> None:
        bare.step(action)
        if options:
            bare.physics.render(64, 64, camera_id=0)

    return _overhead(
        f"dmc/{task} {options.get('obs', 'state')}",
        (lambda: ours.reset(seed=0), lambda: ours.step(action)),
        (bare_reset, bare_step),
        steps=3 if options else 20,
        turns=15 if options else TURNS,
    )


Pair = tuple[Callable[[], Any], Callable[[], Any]]


def _overhead(
    name: str, ours: Pair, bare: Pair, *, steps: int = 20, turns: int = TURNS
) -> dict[str, Any]:
    """Short turns one after the other, and of each the lower tenth: other load hits some turns."""
    caller: dict[str, list[float]] = {"ours": [], "bare": []}
    whole = []
    for _ in range(turns):
        for key, (reset, step) in (("ours", ours), ("bare", bare)):
            reset()
            start, process = time.thread_time(), time.process_time()
            for _ in range(steps):
                step()
            caller[key].append((time.thread_time() - start) / steps)
            if key == "bare":
                whole.append((time.process_time() - process) / steps)
    added = np.quantile(caller["ours"], 0.1) - np.quantile(caller["bare"], 0.1)
    total = np.quantile(whole, 0.1)
    return {
        "name": f"{name} wrapping",
        "added_us": 1e6 * added,
        "bare_cpu_us": 1e6 * total,
        "overhead_percent": 100 * added / total,
    }


def _ale(num_envs: int) -> Any:
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        "pong", num_envs, img_height=64, img_width=64, grayscale=False, stack_num=1,
        use_fire_reset=False, reward_clipping=False, repeat_action_probability=0.25,
        num_threads=1 if num_envs == 1 else 0,
    )  # fmt: skip


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None

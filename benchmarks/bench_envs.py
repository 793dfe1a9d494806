"""Environment steps per second by backend and mode, beside Gymnasium's; the cost of our wrapping.

`steps_per_second` is wall time over all environments; `cpu_us` is this process's CPU time per
environment step (worker processes are not in it). An overhead is what the calling thread does more
than with the bare simulator, in per cent of all CPU time the bare one takes.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

COUNTS = (1, 8, 32)
BOTH = ("sync", "async")
# (id, module it needs, our modes, Gymnasium's modes of the same, options). Left out: crafter, whose
# resets take longer than the whole table, and unity, which needs a player.
ENVIRONMENTS: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...], dict[str, Any]], ...] = (
    ("gym/CartPole-v1", "gymnasium", BOTH, BOTH, {}),
    ("wf/catch", "worldflux_envs", ("sync", "native"), (), {}),
    ("atari/Pong", "ale_py", (*BOTH, "native"), (), {}),
    ("dmc/walker-walk", "dm_control", BOTH, BOTH, {}),
    ("mujoco/HalfCheetah-v5", "mujoco", BOTH, (), {}),
    ("robotics/PointMaze_UMaze-v3", "gymnasium_robotics", BOTH, (), {}),
    ("minigrid/MiniGrid-Empty-5x5-v0", "minigrid", BOTH, (), {}),
    # Brax compiles each number of rows anew: the smallest task, which takes seconds.
    ("brax/inverted_pendulum", "brax", ("native",), (), {"physics": "spring"}),
)
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
    from worldflux.factory import make_vec_env

    for env_id, module, modes, theirs, options in ENVIRONMENTS:
        if not _installed(module):
            continue
        for num_envs in COUNTS:
            for mode in modes:
                ours = partial(make_vec_env, env_id, num_envs, mode=mode, **options)
                yield f"{env_id} {mode}", num_envs, ours
            for mode in theirs:
                yield (
                    f"{env_id} gymnasium {mode}",
                    num_envs,
                    partial(_gymnasium, env_id, mode, num_envs),
                )
            if env_id == "atari/Pong":
                yield "atari/Pong ale_py's own", num_envs, partial(_ale, num_envs)
    for num_envs in COUNTS:
        yield "wm (dreamerv3:size1m) native", num_envs, partial(_dream, num_envs)


def _dream(num_envs: int) -> Any:
    """Dreams of an untrained model: what they are about costs nothing."""
    from worldflux.factory import create_world_model
    from worldflux_envs.dream import WorldModelVectorEnv

    model = create_world_model("dreamerv3:size1m", obs_shape=(3,), action_dim=3, discrete=True)
    return WorldModelVectorEnv(model, num_envs)


def _gymnasium(env_id: str, mode: str, num_envs: int) -> Any:
    """Gymnasium's own vector: of its CartPole, else of our single environments."""
    import gymnasium
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    from worldflux.factory import make_env

    task = env_id.removeprefix("gym/")
    build = partial(gymnasium.make, task) if task != env_id else partial(make_env, env_id)
    return (SyncVectorEnv if mode == "sync" else AsyncVectorEnv)([build] * num_envs)


def _speed(vec: Any, num_envs: int) -> dict[str, float]:
    vec.reset(seed=0)
    vec.action_space.seed(0)
    actions = [vec.action_space.sample() for _ in range(50)]
    for action in actions:  # long enough for an episode to end: what resets compile is not counted
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
            turns=20,  # a reset costs as much as hundreds of steps
        )
        yield _checks("atari/Pong", ours, 0, turns=20)
    if _installed("dm_control"):
        from worldflux_envs.backends import dmc

        walker = dmc.make("walker-walk")
        yield _checks("dmc/walker-walk", walker, np.zeros(walker.action_space.shape, np.float32))
        yield _dmc_overhead("walker-walk", {})
        yield _dmc_overhead("humanoid-walk", {})
        yield _dmc_overhead("walker-walk", {"obs": "pixels"})


def _checks(name: str, env: Any, action: Any, turns: int = TURNS) -> dict[str, Any]:
    """What `Contract` adds to the very environment it is around."""
    inner = env.env
    return _overhead(
        f"{name} contract:",
        (lambda: env.reset(seed=0), lambda: env.step(action)),
        (lambda: inner.reset(seed=0), lambda: inner.step(action)),
        turns=turns,
    )


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
    """The median of what a turn of ours takes more than the turn of the bare one beside it.

    Turns are short and swap places: the machine's speed drifts by more than what is measured.
    """
    caller: dict[str, list[float]] = {"ours": [], "bare": []}
    whole, sides = [], [("ours", ours), ("bare", bare)]
    for _ in range(turns):
        for key, (reset, step) in sides:
            reset()
            start, process = time.thread_time(), time.process_time()
            for _ in range(steps):
                step()
            caller[key].append((time.thread_time() - start) / steps)
            if key == "bare":
                whole.append((time.process_time() - process) / steps)
        sides.reverse()
    added = np.median(np.subtract(caller["ours"], caller["bare"]))
    total = np.median(whole)
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

"""IRIS's costs in process CPU time on one thread, raw and normalised (see matmul_peak), and memory.

The peer is eloialonso/iris: imagination of 20 steps (19 transitions) from 8 starts, each frame
decoded and seen by the actor.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable

import torch

from benchmarks.matmul_peak import Case, measured_rows
from worldflux.core.rand import Rand
from worldflux.specs import TensorSpec
from worldflux.testing.batches import random_obs
from worldflux_iris.iris import behavior
from worldflux_iris.iris.agent import IRISAgent
from worldflux_iris.iris.config import PRESETS

OBS = {"image": TensorSpec((3, 64, 64), "uint8", 0, 255)}
ACTION = {"action": TensorSpec((), "int64", n=4)}
MOST_MEMORY = 1500.0


def rows() -> list[dict[str, object]]:
    """One row per case: name, cpu_ms, normalised, target, peer; and 64 dreams' peak memory."""
    name = "iris imagination, 64 x 20, peak memory"
    memory = {"name": name, "peak_mb": peak_memory(), "target_mb": MOST_MEMORY}
    return [*measured_rows(cases), memory]


def cases() -> list[Case]:
    """Imagination as published, in float32 and bfloat16."""
    agent = IRISAgent(PRESETS["base"], OBS, ACTION)
    run, name = dream(agent, 8), "iris imagination, 8 x 20, decoding included"
    return [
        Case(name, run, target=400.0, peer=661.0),
        Case(f"{name}, bf16", run, target=265.0, bf16=True),
    ]


def dream(agent: IRISAgent, rows: int) -> Callable[[], object]:
    """A dream of 20 frames from `rows` random ones, without gradients."""
    rand = Rand.seeded(0)
    image = random_obs(OBS, (rows,), rand)["image"]

    def run() -> object:
        with torch.no_grad():
            start = agent.world_model.encode({"image": image})
            memory = agent.actor.initial(rows)
            player = behavior.Player(agent, memory, agent.normal(image), rand, learns=False)
            return behavior.dreamt(agent, start, player, rand)

    return run


def peak_memory() -> float:
    """MB that a process needs at most for a dream of 20 frames from 64 starts, torch included."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_iris", "memory"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


if __name__ == "__main__":
    if sys.argv[1:] == ["memory"]:
        torch.set_num_threads(1)
        dream(IRISAgent(PRESETS["base"], OBS, ACTION), 64)()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    else:
        for row in rows():
            print(row)

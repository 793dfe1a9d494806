"""DIAMOND's costs in process CPU time on one thread, raw and normalised (see matmul_peak)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.matmul_peak import Case, measured_rows
from worldflux.core.rand import Rand
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch
from worldflux_diamond.diamond.agent import DiamondAgent
from worldflux_diamond.diamond.config import PRESETS

OBS = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
ACTION = {"action": TensorSpec((), "int64", n=4)}
ROWS = 8


def rows() -> list[dict[str, object]]:
    """One row per case: name, cpu_ms, normalised, target, peer (eloialonso/diamond)."""
    return measured_rows(cases)


def cases() -> list[Case]:
    """The operations of the project's benchmark table."""
    agent = DiamondAgent(PRESETS["diamond"], OBS, ACTION)
    train, sample = train_step(agent), sample_step(agent)
    return [
        Case(f"diamond training step of the denoiser, B{ROWS}", train, target=85.0, peer=103.0),
        Case("diamond sample in 3 steps, B1", sample, target=11.0, peer=14.7),
        Case(
            f"diamond training step of the denoiser, B{ROWS}, bf16", train, target=57.0, bf16=True
        ),
        Case("diamond sample in 3 steps, B1, bf16", sample, target=7.0, bf16=True),
    ]


def train_step(agent: DiamondAgent) -> Callable[[], object]:
    """One update of the denoiser: two frames in a row, the second from its own first."""
    phase, rand = agent.training_plan().phase("denoiser"), Rand.seeded(0)
    batch = random_batch(OBS, ACTION, ROWS, phase.total, boundary=False)
    batch.context = phase.context
    return lambda: agent.update(batch, "denoiser", rand=rand)


def sample_step(agent: DiamondAgent) -> Callable[[], object]:
    """One frame of one row."""
    model, rand = agent.world_model, Rand.seeded(0)
    denoiser = model.dynamics_model.denoiser
    state = model.encode({"image": torch.zeros(1, 3, 64, 64, dtype=torch.uint8)})
    noise = model.dynamics_model.noise(state, rand=rand)
    return lambda: denoiser.sample(noise, state["frames"], state["actions"], rand)


if __name__ == "__main__":
    for row in rows():
        print(row)

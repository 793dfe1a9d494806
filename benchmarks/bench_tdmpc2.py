"""TD-MPC2's costs in process CPU time on one thread, raw and normalised (see matmul_peak)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.matmul_peak import Case, measured_rows
from worldflux.core.rand import Rand
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch
from worldflux_tdmpc2.agent import TDMPC2Agent
from worldflux_tdmpc2.config import PRESETS

OBS = {"state": TensorSpec((24,))}
ACTION = {"action": TensorSpec((6,), low=-1.0, high=1.0)}


def rows() -> list[dict[str, object]]:
    """One row per case: name, cpu_ms, normalised, target, peer (nicklashansen/tdmpc2)."""
    return measured_rows(cases)


def cases() -> list[Case]:
    """The operations of the project's benchmark table."""
    agent = TDMPC2Agent(PRESETS["5m"], OBS, ACTION)
    plan, update = plan_step(agent), update_step(agent)
    c = agent.planner.config
    plan_name = f"tdmpc2 5m plan, {c.candidates} x H{c.horizon}, {c.iterations} iterations"
    update_name = f"tdmpc2 5m update, B{agent.config.agent.batch_size}"
    return [
        Case(plan_name, plan, target=52.0, peer=79.0),
        Case(update_name, update, target=52.0, peer=73.0),
        Case(f"{plan_name}, bf16", plan, target=29.0, bf16=True),
        Case(f"{update_name}, bf16", update, target=37.0, bf16=True),
    ]


def plan_step(agent: TDMPC2Agent) -> Callable[[], object]:
    """One action for one observation, the plan carried along."""
    obs, going_on = {"state": torch.randn(1, 24)}, torch.zeros(1, dtype=torch.bool)
    rand = Rand.seeded(0)
    _, state = agent.act(obs, None, ~going_on, "train", rand=rand)
    return lambda: agent.act(obs, state, going_on, "train", rand=rand)


def update_step(agent: TDMPC2Agent) -> Callable[[], object]:
    """One update of model, policy and target Q functions."""
    c, rand = agent.config.agent, Rand.seeded(0)
    batch = random_batch(OBS, ACTION, c.batch_size, c.horizon + 1, boundary=False)
    return lambda: agent.update(batch, "online", rand=rand)


if __name__ == "__main__":
    for row in rows():
        print(row)

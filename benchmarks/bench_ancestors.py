"""CPU time of an update and an action of PlaNet, DreamerV1, V2 and the modular RSSM, one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.matmul_peak import Case, measured_rows
from worldflux.core.agent import Agent
from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.factory import create_agent
from worldflux.specs import TensorSpec
from worldflux.testing.batches import random_batch, random_obs

Specs = dict[str, TensorSpec]
IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
VECTOR = {"state": TensorSpec((24,))}
ACTION = {"action": TensorSpec((6,), low=-1.0, high=1.0)}
CHOICE = {"action": TensorSpec((), "int64", n=18)}
CASES: list[tuple[str, Specs, Specs, int, int]] = [
    ("planet:dmc", IMAGE, ACTION, 4, 16),
    ("dreamerv1:dmc", IMAGE, ACTION, 4, 16),
    ("dreamerv2:dmc", IMAGE, ACTION, 4, 16),
    ("dreamerv2:atari", IMAGE, CHOICE, 4, 16),
    ("planet:small", VECTOR, ACTION, 16, 32),
    ("dreamerv1:dmc", VECTOR, ACTION, 16, 32),
    ("dreamerv2:dmc", VECTOR, ACTION, 16, 32),
    ("rssm:small", VECTOR, ACTION, 16, 32),
]
OPTIONS: dict[str, dict[str, Any]] = {"planet:dmc": {"model.reward_layers": 2}}
"""The reward head of PlaNet's peer has no third layer."""
PEERS = {
    "planet:dmc image update 4x16": 36.7,
    "planet:dmc image act": 202.8,
    "dreamerv1:dmc image update 4x16": 63.5,
    "dreamerv2:atari image update 4x16": 159.2,
}
"""Normalised costs, in turn with ours and in one process, of Kaixhin/PlaNet at 28c8491 (plan: 1000
candidates, 10 iterations, horizon 12), yusukeurakami/dreamer-pytorch at b51af83 and
jurgisp/pydreamer at 8a4ea85, with the same sizes, images and 15 imagined steps."""


def rows() -> list[dict[str, object]]:
    """Two rows per preset and kind of observation: an update and an action."""
    return measured_rows(cases)


def cases() -> list[Case]:
    """The operations, built."""
    return [case for what in CASES for case in _of(*what)]


def _of(model_id: str, obs_spec: Specs, action_spec: Specs, size: int, length: int) -> list[Case]:
    options = OPTIONS.get(model_id, {})
    agent = create_agent(model_id, obs_spec=obs_spec, action_spec=action_spec, **options)
    assert isinstance(agent, Agent)
    name = f"{model_id} {next(iter(obs_spec))}"
    update = _update(agent, random_batch(obs_spec, action_spec, size, length))
    runs = {f"{name} update {size}x{length}": update, f"{name} act": _act(agent)}
    return [Case(key, run, peer=PEERS.get(key)) for key, run in runs.items()]


def _update(agent: Agent, batch: Batch) -> Callable[[], object]:
    rand = Rand.seeded(0)
    phase = agent.training_plan().phases[-1].name
    return lambda: agent.update(batch, phase, rand=rand)


def _act(agent: Agent) -> Callable[[], object]:
    rand = Rand.seeded(0)
    obs = random_obs(agent.obs_spec, (1,), Rand.seeded(0))
    going_on = torch.zeros(1, dtype=torch.bool)
    _, state = agent.act(obs, None, ~going_on, "train", rand=rand)
    return lambda: agent.act(obs, state, going_on, "train", rand=rand)


if __name__ == "__main__":
    for row in rows():
        print(row)

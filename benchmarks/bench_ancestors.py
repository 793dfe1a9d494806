"""CPU time of an update and an action of PlaNet, DreamerV1, V2 and the modular RSSM, one thread."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.matmul_peak import Case, measured_rows
from worldflux.core.agent import Agent
from worldflux.core.batch import Batch
from worldflux.factory import create_agent
from worldflux.specs import TensorSpec
from worldflux.testing.batches import random_batch, random_obs

IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
VECTOR = {"state": TensorSpec((24,))}
ACTION = {"action": TensorSpec((6,), low=-1.0, high=1.0)}
CASES = [
    ("planet:small", IMAGE, 4, 16),
    ("dreamerv1:dmc", IMAGE, 4, 16),
    ("dreamerv2:dmc", IMAGE, 4, 16),
    ("planet:small", VECTOR, 16, 32),
    ("dreamerv1:dmc", VECTOR, 16, 32),
    ("dreamerv2:dmc", VECTOR, 16, 32),
    ("rssm:small", VECTOR, 16, 32),
]


def rows() -> list[dict[str, object]]:
    """Two rows per family and kind of observation: an update and an action."""
    return measured_rows(cases)


def cases() -> list[Case]:
    """The operations, built."""
    return [case for model_id, *sizes in CASES for case in _of(model_id, *sizes)]


def _of(model_id: str, obs_spec: dict[str, TensorSpec], size: int, length: int) -> list[Case]:
    agent = create_agent(model_id, obs_spec=obs_spec, action_spec=ACTION)
    assert isinstance(agent, Agent)
    name = f"{model_id} {next(iter(obs_spec))}"
    update = _update(agent, random_batch(obs_spec, ACTION, size, length))
    return [Case(f"{name} update {size}x{length}", update), Case(f"{name} act", _act(agent))]


def _update(agent: Agent, batch: Batch) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    phase = agent.training_plan().phases[-1].name
    return lambda: agent.update(batch, phase, generator=generator)


def _act(agent: Agent) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    obs = random_obs(agent.obs_spec, (1,), generator)
    going_on = torch.zeros(1, dtype=torch.bool)
    _, state = agent.act(obs, None, ~going_on, "train", generator=generator)
    return lambda: agent.act(obs, state, going_on, "train", generator=generator)


if __name__ == "__main__":
    for row in rows():
        print(row)

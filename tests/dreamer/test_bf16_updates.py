"""Under bf16, what a Dreamer computes after an optimiser step uses the new weights."""

from __future__ import annotations

import pytest
import torch

from worldflux.core.agent import Learner
from worldflux.core.rand import Rand
from worldflux.factory import create_agent
from worldflux.specs import TensorSpec
from worldflux.testing.batches import random_batch
from worldflux_dreamer.dreamerv2.agent import DreamerV2Agent

OBS = {"state": TensorSpec((5,))}
ACTION = {"action": TensorSpec((), "int64", n=3)}


def dreamer_v2() -> DreamerV2Agent:
    torch.manual_seed(0)
    small = {"model.units": 32, "model.deter": 32, "agent.model_lr": 1e-3, "agent.decay": 0.0}
    agent = create_agent("dreamerv2", obs_spec=OBS, action_spec=ACTION, **small)
    assert isinstance(agent, DreamerV2Agent)
    return agent


def imagined_reward(precision: str) -> float:
    """The imagined reward of one update, in which a model step comes first."""
    with torch.random.fork_rng(devices=[]):
        agent = dreamer_v2()
        agent.precision = precision  # type: ignore[assignment]
        batch = random_batch(OBS, ACTION, 4, 8)
        batch.reward = batch.reward * 0 + 5.0 * (~batch.is_first).float()
        with agent.autocast():  # outer contexts keep the cache of old weights alive
            result = agent.update(batch, "train", rand=Rand.seeded(1))
    return float(torch.as_tensor(result.metrics["reward"]))


def test_the_second_step_of_dreamer_v2_uses_the_new_weights() -> None:
    exact = imagined_reward("fp32")
    assert imagined_reward("bf16") == pytest.approx(exact, rel=0.02)


def test_every_dreamer_computes_in_its_precision() -> None:
    for family in ("dreamerv3:size1m", "dreamerv2", "dreamerv1", "planet", "rssm"):
        found = {precision: _loss(family, precision) for precision in ("fp32", "bf16")}
        assert found["bf16"] != found["fp32"], f"{family} ignores precision"
        assert found["bf16"] == pytest.approx(found["fp32"], rel=0.05), family


def _loss(family: str, precision: str) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        agent: Learner = create_agent(family, obs_spec=OBS, action_spec=ACTION)
        agent.precision = precision  # type: ignore[assignment]
        phase = agent.training_plan().phases[-1].name
        batch = random_batch(OBS, ACTION, 2, 6)
        found = agent.update(batch, phase, rand=Rand.seeded(1)).metrics
        return float(torch.as_tensor(found.get("loss", found.get("loss/model"))))

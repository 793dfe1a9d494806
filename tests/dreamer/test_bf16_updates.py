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
from worldflux_dreamer.dreamerv3.representation.contrastive import info_nce
from worldflux_dreamer.dreamerv3.representation.r2 import barlow_loss
from worldflux_dreamer.latent_rssm.agent import ImaginingAgent
from worldflux_dreamer.latent_rssm.layers import Head

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


@pytest.mark.parametrize("family", ["dreamerv1", "dreamerv2", "planet", "rssm"])
def test_predictions_that_enter_targets_are_exact_near_300(family: str) -> None:
    """Reward, value and continue: bfloat16 has no odd numbers there."""
    options = {"model.continue_head": True} if family.startswith("dreamer") else {}
    agent = create_agent(family, obs_spec=OBS, action_spec=ACTION, **options)
    heads = {"reward": agent.world_model.decoder_module.reward}
    if isinstance(agent, ImaginingAgent):
        heads |= {"value": agent.critic, "continue": agent.world_model.decoder_module.going_on}
    for name, head in heads.items():
        with torch.no_grad():
            head.out.weight.zero_()
            head.out.bias.fill_(301.3)
            with torch.autocast("cpu", torch.bfloat16):
                found = head(torch.randn(2, head.mlp[0].in_features))
        assert found.dtype == torch.float32, name
        assert found.flatten().tolist() == pytest.approx([301.3] * 2, rel=1e-6), name


def test_the_last_layer_in_bf16_would_not_be_exact() -> None:
    """What the test before would find: the plain head, whose output is bfloat16."""
    head = Head(4, 1, 8, 1, "elu")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        head.out.weight.zero_()
        head.out.bias.fill_(301.3)
        assert abs(float(head(torch.randn(1, 4))) - 301.3) > 0.5


def test_products_of_representation_losses_are_float32() -> None:
    left, right = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(0)) + 3
    plain = info_nce(left, right), barlow_loss(left, right, 5e-4)
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(left, right), barlow_loss(left, right, 5e-4)
    for ours, exact in zip(found, plain, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, exact)


def test_latents_are_kept_as_they_are_computed() -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        agent = create_agent("dreamerv3:size1m", obs_spec=OBS, action_spec=ACTION)
        agent.precision = precision
        assert agent.replay_spec["deter"].dtype == str(dtype).removeprefix("torch.")
        written = agent.update(random_batch(OBS, ACTION, 2, 4), "train", rand=Rand.seeded(0))
        assert written.replay_writes["deter"].dtype == dtype
        stored = {key: value[:, 0] for key, value in written.replay_writes.items()}
        start = agent.world_model.restored(stored)
        assert start is not None and start["deter"].dtype == torch.float32

"""Mistakes seen in other implementations, tried on every family before DreamerV3."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from worldflux.core.agent import Agent
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.factory import create_agent
from worldflux.specs import TensorSpec
from worldflux.testing.batches import random_batch
from worldflux_dreamer.latent_rssm.agent import ImaginingAgent
from worldflux_dreamer.latent_rssm.world_model import LatentWorldModel

FAMILIES = ["planet", "dreamerv1", "dreamerv2", "rssm"]
IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
VECTOR, CONTINUOUS = {"state": TensorSpec((5,))}, {"action": TensorSpec((2,), low=-1.0, high=1.0)}
TINY: dict[str, Any] = {
    "deter": 16, "hidden": 12, "stoch": 4, "units": 16, "depth": 4, "vector_layers": 1,
}  # fmt: skip


def made(family: str, obs: dict[str, TensorSpec] = VECTOR, **options: Any) -> Agent:
    sizes = {f"model.{key}": value for key, value in TINY.items()}
    if family in ("planet", "rssm"):
        few = {"candidates": 20, "elites": 4, "iterations": 2, "horizon": 3}
        sizes |= {f"agent.planner.{key}": value for key, value in few.items()}
    found = create_agent(family, obs_spec=obs, action_spec=CONTINUOUS, **{**sizes, **options})
    assert isinstance(found, Agent)
    return found


def world_model(agent: Agent) -> LatentWorldModel:
    assert isinstance(agent.world_model, LatentWorldModel)
    return agent.world_model


def act(agent: Agent, value: float, state: State | None, first: bool) -> tuple[Any, State]:
    obs = {"state": torch.full((3, 5), value)}
    is_first = torch.full((3,), first)
    action, after = agent.act(obs, state, is_first, "train", rand=Rand.seeded(1))
    return action.tensor, after


@pytest.mark.parametrize("family", FAMILIES)
def test_the_agent_that_acts_sees_the_observation(family: str) -> None:
    """Acting from the prior, or from an observation of one step ago, would not notice."""
    agent = made(family)
    _, before = act(agent, 0.0, None, True)
    same, seen = act(agent, 1.0, before, False)
    again, _ = act(agent, 1.0, before, False)
    other, unlike = act(agent, -5.0, before, False)
    assert torch.equal(same, again) and not torch.equal(same, other)
    assert torch.equal(seen["deter"], unlike["deter"])
    assert not torch.equal(seen["stoch"], unlike["stoch"])


@pytest.mark.parametrize("family", FAMILIES)
def test_acting_sees_pixels_as_learning_does(family: str) -> None:
    """uint8 pixels and the same ones in [0, 1] are one observation, on either path."""
    model = world_model(made(family, IMAGE, **{"model.bits": 8}))
    batch = random_batch(IMAGE, CONTINUOUS, batch=2, length=3)
    learned = model.observe_sequence(batch, rand=Rand.seeded(0))
    for pixels in (batch.obs["image"][:, 0], batch.obs["image"][:, 0].float() / 255):
        middle = {"pixels/image": torch.full(tuple(pixels.shape), 0.5)}
        acted = model.encode({"image": pixels}, rand=Rand(draws=middle))
        atol = 0.05 if family == "planet" and pixels.dtype == torch.uint8 else 1e-5
        for key in model.latent_keys():
            torch.testing.assert_close(acted[key], learned[key][:, 0], atol=atol, rtol=1e-4)


@pytest.mark.parametrize("family", ["dreamerv1", "dreamerv2"])
def test_fifteen_imagined_steps_are_sixteen_states(family: str) -> None:
    agent = made(family)
    assert isinstance(agent, ImaginingAgent)
    batch = random_batch(VECTOR, CONTINUOUS, batch=2, length=3)
    posterior = agent.world_model.observe_sequence(batch, rand=Rand.seeded(0))
    found = agent.imagine(posterior, batch.is_terminal, Rand.seeded(0))
    assert found.feat.shape[:2] == (6, 16) and found.action.shape[:2] == (6, 15)
    assert found.reward.shape == found.going_on.shape == (6, 15)
    start = torch.cat([posterior["deter"], posterior["stoch"].flatten(2)], -1).flatten(0, 1)
    torch.testing.assert_close(found.feat[:, 0], start)


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_keeps_its_islands_in_float32(family: str) -> None:
    model = world_model(made(family))
    batch = random_batch(VECTOR, CONTINUOUS, batch=4, length=6)
    full = model.loss(batch, rand=Rand.seeded(0))
    with torch.autocast("cpu", torch.bfloat16):
        half = model.loss(batch, rand=Rand.seeded(0))
    for name, term in half.components.items():
        assert term.dtype == torch.float32, name
        assert term.item() == pytest.approx(full.components[name].item(), rel=2e-2, abs=2e-2), name


def test_the_checkpoint_of_v2_has_critic_target_and_counter() -> None:
    names = made("dreamerv2").state_dict()
    parts = {name.partition(".")[0] for name in names}
    assert parts == {"world_model", "actor", "critic", "slow_critic", "updates"}


@pytest.mark.parametrize("family", FAMILIES)
def test_two_agents_share_nothing(family: str) -> None:
    left, right = made(family), made(family)
    held = [{p.data_ptr() for p in agent.parameters()} for agent in (left, right)]
    assert not held[0] & held[1]

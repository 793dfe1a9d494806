"""Published sizes, spaces that are refused, the perceptual loss, checkpoints of others."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux.errors import CapabilityError, ConfigError, ContractError, StorageError
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch
from worldflux_iris.iris.agent import IRISAgent
from worldflux_iris.iris.config import PRESETS, TINY
from worldflux_iris.iris.reference import load_weights, place
from worldflux_iris.perceptual import Perceptual
from worldflux_train.config import resolve

IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", 0, 255)}
SMALL = {"image": TensorSpec((3, 16, 16), "uint8", 0, 255)}
Make = Callable[..., IRISAgent]
CHOICE = {"action": TensorSpec((), "int64", n=4)}


def count(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        agent = IRISAgent(PRESETS["base"], IMAGE, CHOICE)
    model = agent.world_model
    assert count(model.parameters_of("tokenizer")) == 4_027_523
    assert count(model.parameters_of("world_model")) == 8_447_493
    assert count(agent.actor.parameters()) == 3_217_957
    assert model.parameter_count() == 12_475_016
    assert agent.parameter_count() == 15_692_973
    assert model.observation_encoder.side**2 == 16


def test_the_published_plan() -> None:
    agent = IRISAgent.__new__(IRISAgent)
    agent.config = PRESETS["base"].with_(**{"model.perceptual": 0.0})
    plan = agent.training_plan()
    found = [(p.name, p.batch, p.total, p.start, p.updates_per_step, p.pad) for p in plan.phases]
    assert found == [
        ("tokenizer", 256, 1, 1_000, 1.0, "none"),
        ("world_model", 64, 21, 5_000, 1.0, "after"),  # 20 blocks, and what the last one led to
        ("actor_critic", 64, 21, 10_000, 1.0, "before"),
    ]
    assert plan.collect_until == 100_000 and plan.phases[0].weights == (0.125, 0.125, 0.25, 0.5)


@pytest.mark.parametrize(
    ("obs", "action", "said"),
    [
        ({"state": TensorSpec((3,))}, CHOICE, "sees one image, under 'image', got state"),
        (SMALL, {"action": TensorSpec((2,), low=-1.0, high=1.0)}, "needs one discrete action"),
        ({"image": TensorSpec((3, 20, 20), "uint8", 0, 255)}, CHOICE, "multiple of 16"),
    ],
)
def test_other_spaces_are_refused(obs: Any, action: Any, said: str) -> None:
    with pytest.raises(CapabilityError, match=said):
        IRISAgent(TINY, obs, action)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="channels=50 is not a multiple of groups=4"):
        TINY.with_(**{"model.channels": 50})
    with pytest.raises(ConfigError, match="dim=66 is not a multiple of heads=4"):
        TINY.with_(**{"model.dim": 66})


def test_longer_sequences_than_the_window_are_refused(small: Make) -> None:
    batch = random_batch(SMALL, CHOICE, 2, 12, boundary=False)
    with pytest.raises(ContractError, match=r"at most model.max_blocks \+ 1 = 11 steps.*got 12"):
        small().world_model.loss(batch, "world_model")


@pytest.mark.skipif(importlib.util.find_spec("lpips") is not None, reason="lpips is installed")
def test_the_perceptual_loss_is_never_left_out_silently(small: Make) -> None:
    agent = small(**{"model.perceptual": 1.0})
    with pytest.raises(CapabilityError, match=r"worldflux-iris\[lpips\].*model.perceptual=0"):
        agent.training_plan()
    with pytest.raises(CapabilityError, match="needs the package lpips"):
        agent.world_model.loss(random_batch(SMALL, CHOICE, 2, 1, boundary=False), "tokenizer")


class Range:
    """A perceptual network that says how far its images reach."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0

    def __call__(self, image: Tensor, other: Tensor) -> Tensor:
        self.low, self.high = float(image.min()), float(image.max())
        return (image - other).square().mean((1, 2, 3), keepdim=True)


def test_the_perceptual_loss_sees_images_in_its_range_and_trains_the_tokenizer(
    small: Make,
) -> None:
    """Between -1 and 1, whatever the pixels of the tokenizer are normalised by."""
    model = small(**{"model.perceptual": 0.5}).world_model
    seen = Range()
    model.perceptual = Perceptual(seen)
    model.observation_encoder.pixels.scale.fill_(0.1)
    batch = random_batch(SMALL, CHOICE, 2, 1, boundary=False)
    batch.obs["image"][:, :, :, 0, 0], batch.obs["image"][:, :, :, 0, 1] = 0, 255
    found = model.loss(batch, "tokenizer")
    assert (seen.low, seen.high) == (-1.0, 1.0)
    parts = found.components
    rest = parts["reconstruction"] + parts["codebook"] + parts["commitment"]
    torch.testing.assert_close(found.loss, rest + 0.5 * parts["perceptual"])
    found.loss.backward()
    assert model.decoder_module.net.last.weight.grad is not None


def test_weights_of_other_kinds_are_refused(small: Make) -> None:
    agent = small()
    with pytest.raises(StorageError, match="no parameter of IRIS as published"):
        place("rssm.gru.weight", 2)
    with pytest.raises(StorageError, match="has nothing for"):
        load_weights(agent, {})
    with pytest.raises(StorageError, match=r"has shape \(3,\).*choose the sizes"):
        load_weights(agent, {"actor_critic.actor_linear.bias": torch.zeros(3)})
    with pytest.raises(StorageError, match="The agent has no 'actor.convs.3.bias'"):
        load_weights(agent, {"actor_critic.conv4.bias": torch.zeros(3)})


def test_recipes_resolve_to_what_was_published() -> None:
    found = resolve(config="iris-atari100k")
    assert (found.id, found.train.steps, found.train.envs) == ("iris", 120_000, 1)
    assert found.env["life_loss"] and found.env["sticky"] == 0.0
    changes = resolve(config="delta-iris-atari100k")
    assert (changes.id, changes.train.steps, changes.train.envs) == ("delta-iris:atari", 121_800, 1)
    assert changes.env["life_loss"] and changes.env["sticky"] == 0.0
    crafter = resolve(config="delta-iris-crafter")
    assert (crafter.train.steps, crafter.train.envs) == (10_090_000, 16)
    for name in ("iris-catch", "delta-iris-catch"):
        assert resolve(config=name).env["obs"] == "pixels"

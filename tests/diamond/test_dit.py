"""DiT: sizes, mistakes that are easily made, and as a denoiser of DIAMOND."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux import create_agent, create_world_model, from_pretrained
from worldflux.core.batch import Batch
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.rand import Rand
from worldflux.errors import CapabilityError, ConfigError, ContractError, StorageError
from worldflux.shapes import draw_shapes
from worldflux.specs import TensorSpec
from worldflux.testing.inputs import randomise
from worldflux.testing.phases import updated
from worldflux_diamond.diamond.agent import DiamondAgent
from worldflux_diamond.dit.config import PRESETS, DiTConfig
from worldflux_diamond.dit.denoiser import DiTFrames, FrameTransformer
from worldflux_diamond.dit.learner import DiTLearner, grid
from worldflux_diamond.dit.reference import load_weights, our_name, read_checkpoint
from worldflux_diamond.dit.world_model import DiTWorldModel, labelled

IMAGE = {"image": TensorSpec((3, 8, 8), "uint8", low=0, high=255)}
SMALL: dict[str, Any] = {
    "model.width": 16, "model.depth": 1, "model.heads": 2, "model.classes": 3,
    "model.spacing": "3", "agent.batch": 8, "agent.samples": 2,
}  # fmt: skip


def make(**overrides: Any) -> DiTLearner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = create_agent("dit:tiny", obs_spec=IMAGE, action_spec={}, **{**SMALL, **overrides})
    assert isinstance(learner, DiTLearner)
    return learner


def shapes(count: int = 30) -> EpisodeSource:
    """Drawn images of three classes, each an episode of one step."""
    images, labels = draw_shapes(count, 0, classes=3, size=8)
    yes = torch.ones(1, dtype=torch.bool).numpy()
    episodes = [
        {"obs.image": x[None], "extra.label": y[None], "is_first": yes, "is_last": yes,
         "is_terminal": yes}
        for x, y in zip(images, labels, strict=True)
    ]  # fmt: skip
    return EpisodeSource(episodes, make().columns)


@pytest.mark.parametrize(
    ("preset", "trainable"),
    [
        ("s-2", 32_865_056), ("b-2", 130_315_808), ("l-2", 457_840_672), ("xl-2", 674_834_720),
    ],
)  # fmt: skip
def test_parameter_counts(preset: str, trainable: int) -> None:
    """On latents 32 x 32 x 4 of 1000 classes; their count also has the fixed table of places."""
    latents = {"latents": TensorSpec((4, 32, 32))}
    with torch.device("meta"):
        model = DiTWorldModel(PRESETS[preset].with_(**{"model.classes": 1000}), latents)
    assert model.parameter_count() == trainable


def test_a_preset_of_document_004() -> None:
    c = PRESETS["cifar10"]
    found = (c.model.patch, c.model.width, c.model.depth, c.model.heads, c.model.steps)
    assert found == (4, 384, 6, 6, 1000) and (c.agent.batch, c.agent.lr) == (128, 2e-4)


def test_at_first_nothing_is_said() -> None:
    """adaLN-Zero: whatever goes in, the output is zero, and every block passes its tokens on."""
    dynamics = make().world_model.dynamics_model
    tokens, condition = torch.randn(2, 4, 16), torch.randn(2, 16)
    assert torch.equal(dynamics.network.blocks[0](tokens, condition), tokens)
    out = dynamics.output(torch.randn(2, 3, 8, 8), torch.tensor([0, 9]), condition)
    assert not out.any()


def _loss(model: DiTWorldModel, label: int, **draws: Tensor) -> float:
    images = torch.arange(2 * 3 * 64, dtype=torch.uint8).reshape(2, 1, 3, 8, 8)
    yes = torch.ones(2, 1, dtype=torch.bool)
    batch = Batch({"image": images}, yes, yes, yes, extra={"label": torch.full((2, 1), label)})
    rand = Rand(torch.Generator().manual_seed(0), draws=draws)
    return float(model.loss(batch, rand=rand).loss.detach())


def test_labels_are_left_out_for_guidance() -> None:
    learner = make()
    randomise(learner)
    model = learner.world_model
    keep, drop = torch.ones(2, 1), torch.zeros(2, 1)
    assert _loss(model, 0, drop=keep) != _loss(model, 1, drop=keep)
    assert _loss(model, 0, drop=drop) == _loss(model, 1, drop=drop)


def test_guidance_pushes_samples_towards_their_label() -> None:
    learner = make()
    randomise(learner)
    model, state = learner.world_model, learner.world_model.initial(2)
    labels = labelled(torch.tensor([0, 1]))
    first = model.transition(state, None, labels, rand=Rand.seeded(0))["x"]
    model.dynamics_model.config = model.config.model.with_(guidance=1.0)
    second = model.transition(state, None, labels, rand=Rand.seeded(0))["x"]
    assert not torch.allclose(first, second)
    third = model.transition(state, None, rand=Rand.seeded(0))["x"]  # of no label in particular
    assert not torch.allclose(second, third)


def test_samples_are_new_and_reproducible() -> None:
    learner = make()
    randomise(learner)
    model, state = learner.world_model, learner.world_model.initial(2)
    samples = [model.transition(state, None, rand=Rand.seeded(seed))["x"] for seed in (0, 0, 1)]
    assert torch.equal(samples[0], samples[1]) and not torch.allclose(samples[0], samples[2])
    assert samples[0].abs().max() <= 1  # of clip


def test_the_average_is_published_and_evaluated(tmp_path: Path) -> None:
    learner, source = make(**{"agent.average": 0.5}), shapes()
    phase = learner.training_plan().phases[0]
    for update in range(3):
        learner.update(source.read(source.choose(phase, update)), phase.name)
    own = learner.world_model.dynamics_model.network.final.linear.weight
    average = learner.averaged.dynamics_model.network.final.linear.weight
    assert not torch.equal(own, average)
    with learner.as_published():
        assert torch.equal(own, average)
        found = learner.evaluate(source, Rand.seeded(0), 2)
    assert found.score is not None and 0 <= found.score <= 1
    assert found.pictures["samples"].shape == (3 * 8, 2 * 8, 3)
    assert {"loss", "samples/nearest_label"} <= found.metrics.keys()
    again = from_pretrained(learner.save_pretrained(tmp_path / "saved"))
    network = again.world_model.dynamics_model.network
    assert torch.equal(network.final.linear.weight, average)
    assert torch.equal(network.positions, learner.world_model.dynamics_model.network.positions)


def test_images_without_labels() -> None:
    learner = make(**{"model.classes": None})
    assert "extra.label" not in learner.columns
    updated(learner, learner.training_plan().phases[0])
    images, _ = learner.samples(Rand.seeded(0), 2)
    assert images.shape == (2, 3, 8, 8)
    config = DiTConfig().completed({"extra.label": TensorSpec((), "int64", n=7)})
    assert config.model.classes == 7 and config.completed({}) == config


def test_a_grid_of_images() -> None:
    images = torch.zeros(4, 1, 2, 2)
    images[1] = 1.0
    assert grid(images, 2)[:, :, 0].tolist() == [[0, 0, 255, 255]] * 2 + [[0] * 4] * 2


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="takes no actions, got action. As a denoiser"):
        action = {"action": TensorSpec((), "int64", n=3)}
        create_world_model("dit:tiny", obs_spec=IMAGE, action_spec=action)
    with pytest.raises(CapabilityError, match="takes one of shape .* got 'state' \\(5,\\)"):
        create_world_model("dit:tiny", obs_spec={"state": TensorSpec((5,))}, action_spec={})
    with pytest.raises(CapabilityError, match="8x8 cannot be cut into patches of 3"):
        make(**{"model.patch": 3})
    with pytest.raises(ConfigError, match="spacing='ddim700': No whole distance takes 700"):
        PRESETS["tiny"].with_(**{"model.spacing": "ddim700"})
    with pytest.raises(ConfigError, match="width=10 must be a multiple of heads=4"):
        PRESETS["tiny"].with_(**{"model.width": 10})
    bare = make(**{"model.class_dropout": 0.0})
    with pytest.raises(ContractError, match="trained with labels alone"):
        bare.world_model.transition(bare.world_model.initial(1), None)
    with pytest.raises(StorageError, match="'encoder.x' is no parameter of DiT"):
        our_name("encoder.x")
    with pytest.raises(StorageError, match="do not fit this model, .* Give the model the config"):
        load_weights(make().world_model, {})
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(StorageError, match="holds a list"):
        read_checkpoint(tmp_path / "list.pt")
    (tmp_path / "noise.pt").write_bytes(b"nothing")
    with pytest.raises(StorageError, match="no readable DiT checkpoint"):
        read_checkpoint(tmp_path / "noise.pt")


DENOISER: dict[str, Any] = {"patch": 2, "width": 16, "depth": 1, "heads": 2}


def frames_agent(**options: Any) -> DiamondAgent:
    sizes = {
        "model.reward_end.channels": (8,), "model.reward_end.depths": (1,),
        "model.reward_end.attention": (False,), "model.reward_end.lstm": 8, "agent.lstm": 8,
        "agent.horizon": 2, "agent.actor_critic.batch": 2,
    }  # fmt: skip
    agent = create_agent(
        "diamond:tiny", obs_spec=IMAGE, action_spec={"action": TensorSpec((), "int64", n=3)},
        slots={"dynamics_model": {"class": DiTFrames, **DENOISER, **options}}, **sizes,
    )  # fmt: skip
    assert isinstance(agent, DiamondAgent)
    return agent


def test_as_a_denoiser_of_frames(tmp_path: Path) -> None:
    """In DIAMOND's slot it is trained, saved and used like the U-Net."""
    agent = frames_agent()
    network = agent.world_model.dynamics_model.denoiser.network
    assert isinstance(network, FrameTransformer)
    before = network.network.final.linear.weight.detach().clone()
    for phase in agent.training_plan().phases:
        for seed in range(2):
            updated(agent, phase, seed)
    assert not torch.equal(before, network.network.final.linear.weight)
    saved = agent.save_pretrained(tmp_path / "saved")
    again = from_pretrained(saved, slots={"dynamics_model": DiTFrames})
    dynamics = again.world_model.dynamics_model
    assert dynamics.transformer.width == 16
    with pytest.raises(ContractError, match="8x8 cannot be cut into patches of 3"):
        frames_agent(patch=3)

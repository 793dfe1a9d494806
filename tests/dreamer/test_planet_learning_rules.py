"""PlaNet: its loss against a slow reference, its images, its planner, mistakes others made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.factory import create_agent, create_config, create_world_model
from worldflux.planning import CEM
from worldflux.specs import TensorSpec
from worldflux.testing import check_family
from worldflux.testing.batches import random_batch
from worldflux_dreamer.planet.agent import PlaNetAgent
from worldflux_dreamer.planet.losses import beyond_free_nats
from worldflux_dreamer.planet.world_model import PlaNetWorldModel

IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
VECTOR, CONTINUOUS = {"state": TensorSpec((5,))}, {"action": TensorSpec((2,), low=-1.0, high=1.0)}
TINY: dict[str, Any] = {
    "model.deter": 16, "model.hidden": 12, "model.stoch": 4, "model.units": 16, "model.depth": 4,
}  # fmt: skip


def model(obs: dict[str, TensorSpec] = VECTOR, **options: Any) -> PlaNetWorldModel:
    options = {**TINY, **options}
    made = create_world_model("planet", obs_spec=obs, action_spec=CONTINUOUS, **options)
    assert isinstance(made, PlaNetWorldModel)
    return made


def batch(obs: dict[str, TensorSpec] = VECTOR, length: int = 6) -> Batch:
    return random_batch(obs, CONTINUOUS, batch=2, length=length)


def noise(pixels: float | None = 0.5) -> Rand:
    """Fixed draws of a loss; 0.5 puts pixels into the middle of their bins, None anywhere."""
    shape = (2, 6, 3, 64, 64)
    filled = torch.rand(shape) if pixels is None else torch.full(shape, pixels)
    latent = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    return Rand(draws={"stoch": latent, "pixels/image": filled})


def test_conformance() -> None:
    assert "check_score" in check_family("PlaNet", learn=False)


@pytest.mark.parametrize(
    ("preset", "size", "count"), [("dmc", 6, 5_293_820), ("small", 6, 4_438_820)]
)
def test_parameter_counts(preset: str, size: int, count: int) -> None:
    with torch.device("meta"):
        made = create_agent(f"planet:{preset}", obs_spec=IMAGE, action_dim=size)
    assert made.world_model.parameter_count() == made.parameter_count() == count


def test_the_preset_has_the_papers_numbers() -> None:
    config = create_config("planet")
    sizes, acting = config.model, config.agent  # type: ignore[attr-defined]
    assert (sizes.deter, sizes.stoch, sizes.bits, sizes.free_nats) == (200, 30, 5, 3.0)
    assert (acting.lr, acting.eps, acting.clip) == (1e-3, 1e-4, 1000.0)
    plan = acting.planner
    assert (plan.horizon, plan.candidates, plan.iterations, plan.elites) == (12, 1000, 10, 100)
    assert (plan.exploration, plan.select, plan.score.deterministic) == (0.3, "mean", False)
    assert not plan.warm_start


def test_it_plans_with_the_cross_entropy_method_of_core() -> None:
    made = create_agent("planet:small", obs_spec=VECTOR, action_spec=CONTINUOUS)
    assert isinstance(made, PlaNetAgent)
    assert isinstance(made.planner, CEM)


# The loss


def slow_loss(world_model: PlaNetWorldModel, data: Batch, rand: Rand) -> Tensor:
    """Step by step: KL(posterior || prior) less free nats, and the state that saw o_t draws o_t."""
    total, state = torch.zeros(()), world_model.initial(2)
    action = torch.zeros_like(data.action[:, 0])
    for t in range(data.length):
        obs = {key: value[:, t] for key, value in data.obs.items()}
        state = world_model.observe(state, action, obs, data.is_first[:, t], rand=rand.at(t, dim=1))
        prior = world_model.dynamics_model.prior(state)  # type: ignore[union-attr,operator]
        sides = [td.Independent(td.Normal(s["mean"], s["std"]), 1) for s in (state, prior)]
        nats = (td.kl_divergence(*sides) - world_model.sizes.free_nats).clamp(min=0)
        seen = world_model.decode(state)
        likelihood = -0.5 * (seen.predictions["reward"] - data.reward[:, t]).square() * 10
        for key, value in obs.items():
            error = (seen.aux[key] - pixels(value)).flatten(1)
            likelihood = likelihood - 0.5 * error.square().sum(-1)
        total = total + (nats - likelihood).mean()
        action = data.action[:, t]
    return total / data.length


def pixels(value: Tensor) -> Tensor:
    """A 5-bit image in [0, 1], each bin at its middle; vectors as they are."""
    if value.dtype != torch.uint8:
        return value
    return torch.div(value, 8, rounding_mode="floor").float() / 32 + 1 / 64


@pytest.mark.parametrize("obs", [VECTOR, IMAGE])
def test_the_loss_equals_a_slow_reference(obs: dict[str, TensorSpec]) -> None:
    world_model, data = model(obs, **{"model.free_nats": 0.2}), batch(obs)
    expected = slow_loss(world_model, data, noise())
    torch.testing.assert_close(
        world_model.loss(data, rand=noise()).loss, expected, rtol=1e-4, atol=0
    )


def test_free_nats_are_subtracted_at_every_step() -> None:
    kl = torch.tensor([1.0, 3.0, 5.0], requires_grad=True)
    beyond = beyond_free_nats(kl, 3.0)
    assert beyond.tolist() == [0.0, 0.0, 2.0]
    assert torch.autograd.grad(beyond.sum(), kl)[0][[0, 2]].tolist() == [0.0, 1.0]


# Images


def test_the_model_sees_five_bits() -> None:
    """Pixels of one bin are one to it, and bins are filled with noise in training."""
    world_model = model(IMAGE)
    image = torch.full((2, 3, 64, 64), 16, dtype=torch.uint8)
    within, beyond = (world_model.encode({"image": image + k}, deterministic=True) for k in (7, 8))
    same = world_model.encode({"image": image}, deterministic=True)
    torch.testing.assert_close(within["mean"], same["mean"], rtol=0, atol=0)
    assert not torch.equal(beyond["mean"], same["mean"])
    data = batch(IMAGE)
    clean = world_model.loss(data, rand=noise()).loss
    assert world_model.loss(data, rand=noise(None)).loss != clean
    middle = dict(data.obs, image=(data.obs["image"] // 8).float() / 32 + 1 / 64)
    torch.testing.assert_close(
        world_model.loss(replace(data, obs=middle), rand=noise()).loss, clean
    )


def test_the_noise_of_pixels_follows_the_generator() -> None:
    world_model, data = model(IMAGE), batch(IMAGE, length=2)
    before = torch.random.get_rng_state()
    runs = [world_model.loss(data, rand=Rand.seeded(seed)).loss for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert torch.equal(before, torch.random.get_rng_state())


def test_networks_see_pixels_around_zero() -> None:
    world_model, seen = model(IMAGE), []
    encoder = world_model.observation_encoder
    encoder.image.register_forward_pre_hook(lambda _, args: seen.append(args[0]))  # type: ignore[union-attr]
    world_model.loss(batch(IMAGE), rand=Rand.seeded(0))
    assert seen[0].min() >= -0.5
    assert seen[0].max() <= 0.5
    assert abs(seen[0].mean()) < 0.05


# Acting


def test_plans_prefer_what_the_model_rewards() -> None:
    """The planned first action is worth more than the average one, by the model itself."""
    made = create_agent("planet:small", obs_spec=VECTOR, action_spec=CONTINUOUS)
    assert isinstance(made, PlaNetAgent)
    obs, first = {"state": torch.randn(4, 5)}, torch.ones(4, dtype=torch.bool)
    planned = made.act(obs, None, first, "eval", rand=Rand.seeded(0))[0]
    latent = made.world_model.encode(obs, deterministic=True)
    assert planned.tensor is not None

    def value(action: Tensor) -> float:
        plan = torch.cat([action[None], torch.zeros(11, 4, 2)])
        rewards = made.world_model.rollout(latent, plan, deterministic=True).rewards
        assert rewards is not None
        return rewards[0].mean().item()

    others = [value(2 * torch.rand(4, 2) - 1) for _ in range(30)]
    assert value(planned.tensor) > sum(others) / len(others)


def test_every_plan_begins_anew() -> None:
    """The same State is planned for alike, whatever was planned before."""
    made = create_agent("planet:small", obs_spec=VECTOR, action_spec=CONTINUOUS)
    assert isinstance(made, PlaNetAgent)
    start = made.world_model.encode({"state": torch.randn(2, 5)}, deterministic=True)
    first = made.planner(made.world_model, start, rand=Rand.seeded(0))
    memory = first.extras["wf.planner.memory"]
    cold = made.planner(made.world_model, start, previous=memory, rand=Rand.seeded(0))
    assert first.tensor is not None and cold.tensor is not None
    torch.testing.assert_close(cold.tensor, first.tensor)
    warm = type(made.planner)(CONTINUOUS, made.planner.config.with_(warm_start=True))
    moved = warm(made.world_model, start, previous=memory, rand=Rand.seeded(0))
    assert moved.tensor is not None and not torch.allclose(moved.tensor, first.tensor)


def test_training_adds_noise_to_the_plan() -> None:
    made = create_agent("planet:small", obs_spec=VECTOR, action_spec=CONTINUOUS)
    assert isinstance(made, PlaNetAgent)
    obs, first = {"state": torch.zeros(12, 5)}, torch.ones(12, dtype=torch.bool)
    spread = {}
    for mode in ("train", "eval"):
        payload, _ = made.act(obs, None, first, mode, rand=Rand.seeded(0))  # type: ignore[arg-type]
        assert payload.tensor is not None
        spread[mode] = payload.tensor.std(0).mean()
    assert spread["train"] > spread["eval"] + 0.05


def test_the_whole_batch_reaches_the_loss() -> None:
    """Reward and observation of an episode's last step change the loss."""
    world_model, data = model(), batch()
    plain = world_model.loss(data, rand=noise()).components
    row, step = data.is_last.nonzero()[0].tolist()
    reward = data.reward.clone()
    reward[row, step] += 3
    assert (
        world_model.loss(replace(data, reward=reward), rand=noise()).components["reward"]
        != (plain["reward"])
    )

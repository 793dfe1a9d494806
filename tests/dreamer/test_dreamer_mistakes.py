"""Each mistake seen in re-implementations of DreamerV3 (and its fix) as a test."""

from __future__ import annotations

import math

import pytest
import torch

from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.two_hot import symexp_bins, two_hot, two_hot_mean
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch
from worldflux_dreamer import categorical
from worldflux_dreamer.dreamerv3 import losses
from worldflux_dreamer.dreamerv3.agent import DreamerV3Agent
from worldflux_dreamer.dreamerv3.config import DreamerV3Config
from worldflux_dreamer.dreamerv3.images import ImageEncoder
from worldflux_dreamer.dreamerv3.networks import features
from worldflux_dreamer.dreamerv3.returns import ReturnNorm
from worldflux_dreamer.layers import BlockLinear, Linear

TINY = DreamerV3Config(
    model={"deter": 32, "hidden": 16, "stoch": 6, "classes": 4, "units": 16, "depth": 2},
    agent={"imag_length": 15, "lr": 1e-3, "warmup": 0},
)
VECTOR = {"state": TensorSpec((5,))}
IMAGE = {"image": TensorSpec((3, 64, 64), "uint8")}
DISCRETE = {"action": TensorSpec((), "int64", n=4)}
CONTINUOUS = {"action": TensorSpec((2,), low=-1.0, high=1.0)}


@pytest.fixture(autouse=True)
def _own_rng():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def made(obs=VECTOR, action=DISCRETE, config=TINY, spread: float = 0.3):
    """An agent with heads that do not predict zero, a batch without context, and fixed draws."""
    agent = DreamerV3Agent(config, obs, action)
    for head in (agent.value, agent.slow_value, agent.world_model.decoder_module.reward):
        torch.nn.init.normal_(head.out.kernel, std=spread)
    batch = random_batch(obs, action, 3, 8)
    return agent, batch, Rand(draws=noise(batch, agent))


def noise(batch, agent) -> dict[str, torch.Tensor]:
    """Everything that an update draws."""
    source, rows, h = torch.Generator().manual_seed(0), 24, TINY.agent.imag_length
    draw = torch.rand if agent.policy.spec.discrete else torch.randn
    choices = 1 if agent.policy.spec.discrete else agent.policy.spec.size
    return {
        "stoch": torch.rand(3, 8, 6, generator=source),
        "imagined/stoch": torch.rand(h, rows, 6, generator=source),
        "imagined/action_noise": draw(h + 1, rows, choices, generator=source),
    }


def gradients(module: torch.nn.Module) -> float:
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    return float(sum(grad.abs().sum() for grad in grads))


def test_two_hot_bins_lie_in_raw_space():
    bins = symexp_bins(255)
    assert torch.equal(bins, -bins.flip(0))
    assert bins[127] == 0
    assert bins[-1] == pytest.approx(math.expm1(20), rel=1e-6)
    target = (bins[200] + 3 * bins[201]) / 4  # a quarter of the way in raw space
    weights = two_hot(target[None], bins)[0]
    assert weights[200] == pytest.approx(0.25, abs=1e-4)
    assert weights[201] == pytest.approx(0.75, abs=1e-4)
    assert float(two_hot_mean(torch.zeros(1, 255), bins)) == 0.0
    assert float(two_hot_mean(weights.log()[None], bins)) == pytest.approx(float(target), rel=1e-5)


def test_free_nats_clip_the_sum_over_latents_per_step():
    post = torch.zeros(2, 32, 4, requires_grad=True)
    prior = torch.zeros(2, 32, 4)
    prior[0, :, 0] = 0.8  # 0.08 nats per latent: 2.6 in all
    prior[1, :2, 0] = 0.8  # only two latents differ: below one nat
    dyn, rep = losses.kl_losses(post, prior, 0.01, 1.0)
    assert rep[0].item() > 2
    assert rep[1].item() == 1.0
    (grad,) = torch.autograd.grad(rep.sum(), post)
    assert float(grad[0].abs().sum()) > 0
    assert float(grad[1].abs().sum()) == 0
    assert torch.equal(dyn, rep)


def test_latents_have_unimix():
    certain = torch.tensor([[[200.0, -200.0, -200.0, -200.0]]])
    probs = losses.mixed_probs(certain, 0.01)
    assert probs[0, 0].tolist() == pytest.approx([0.9925, 0.0025, 0.0025, 0.0025])
    dyn, _ = losses.kl_losses(certain, certain.flip(-1), 0.01, 0.0)
    assert bool(torch.isfinite(dyn).all())


def test_reset_forgets_state_and_previous_action():
    agent, *_ = made()
    model = agent.world_model
    first = torch.tensor([True, True, False])
    features_ = State({"embed": torch.randn(1, 16).expand(3, -1)})
    state = State({"deter": torch.randn(3, 32), "stoch": torch.rand(3, 6, 4)})
    action = torch.eye(4)[:3]
    new = model.dynamics_model.observe(state, action, features_, first, deterministic=True)
    torch.testing.assert_close(new["deter"][0], new["deter"][1])
    fresh = model.dynamics_model.observe(
        model.initial(3), torch.zeros(3, 4), features_, first, deterministic=True
    )
    torch.testing.assert_close(new["deter"][:2], fresh["deter"][:2])
    assert not torch.allclose(new["deter"][2], fresh["deter"][2])


def test_block_kernels_are_initialised_with_the_full_fan_in():
    blocks = BlockLinear(8 * 64, 8 * 64, 8)
    assert float(blocks.kernel.detach().std()) == pytest.approx(1 / math.sqrt(8 * 64), rel=0.05)
    plain = Linear(512, 512)
    assert float(plain.kernel.detach().std()) == pytest.approx(1 / math.sqrt(512), rel=0.05)
    assert float(plain.kernel.detach().abs().max()) <= 2 * 1.1368 / math.sqrt(512) + 1e-6
    assert float(plain.bias.detach().abs().max()) == 0


def test_norms_have_a_scale_and_no_offset():
    agent, *_ = made(IMAGE, CONTINUOUS)
    names = [name for name, _ in agent.named_parameters() if "norm" in name]
    assert names
    assert all(name.endswith(".scale") for name in names)


def test_weights_include_the_continue_predicted_at_the_root():
    continues = torch.tensor([[0.5, 0.9, 0.8]])
    assert losses.imagination_weight(continues, 1.0)[0].tolist() == pytest.approx([0.5, 0.45, 0.36])


def test_the_critic_also_learns_from_replay_and_shapes_the_model():
    agent, batch, rand = made()
    agent.losses(batch, rand).terms["repval"].mean().backward()
    assert gradients(agent.value) > 0
    assert gradients(agent.world_model.dynamics_model) > 0
    assert gradients(agent.world_model.observation_encoder) > 0
    assert gradients(agent.policy) == 0


def test_return_norm_acts_on_advantages_only():
    agent, batch, rand = made()
    agent.return_norm.high.fill_(1e12)
    large, much = agent.losses(batch, rand), float(agent.return_norm.scale())
    agent.return_norm.low.fill_(0.0)
    agent.return_norm.high.fill_(0.0)
    small, little = agent.losses(batch, rand), float(agent.return_norm.scale())
    ratio = small.metrics["adv_mag"] / large.metrics["adv_mag"]
    assert float(ratio) == pytest.approx(much / little, rel=1e-4)
    assert much > 100 * little
    torch.testing.assert_close(small.terms["value"], large.terms["value"])
    assert not torch.allclose(small.terms["policy"], large.terms["policy"])


def test_return_norm_moves_before_it_is_used():
    norm = ReturnNorm(TINY.agent)
    norm.update(torch.linspace(0, 1000, 101))
    assert float(norm.low) == pytest.approx(0.01 * 50)
    assert float(norm.high) == pytest.approx(0.01 * 950)
    assert float(norm.scale()) == pytest.approx(9.0)
    assert float(ReturnNorm(TINY.agent).scale()) == 1.0


def test_the_policy_that_acts_sees_the_observation():
    agent, *_ = made()
    torch.nn.init.normal_(agent.policy.logits.kernel, std=10.0)
    first = torch.zeros(64, dtype=torch.bool)
    _, state = agent.act({"state": torch.zeros(64, 5)}, None, ~first)
    forced = {"stoch": torch.full((64, 6), 0.5), "action_noise": torch.full((64, 1), 0.5)}
    rand = Rand(draws=forced)
    same, _ = agent.act({"state": torch.ones(64, 5)}, state, first, rand=rand)
    other, _ = agent.act({"state": torch.randn(64, 5) * 50}, state, first, rand=rand)
    assert not torch.equal(same.tensor, other.tensor)


def test_the_slow_critic_follows_after_the_step_and_gets_no_gradient():
    agent, batch, _ = made()
    before = {name: p.clone() for name, p in agent.slow_value.named_parameters()}
    agent.update(batch, "train", rand=Rand.seeded(0))
    after = dict(agent.value.named_parameters())
    for name, slow in agent.slow_value.named_parameters():
        torch.testing.assert_close(slow, 0.98 * before[name] + 0.02 * after[name])
        assert slow.grad is None


def test_returns_bootstrap_from_the_online_critic():
    agent, batch, rand = made()
    plain = agent.losses(batch, rand)
    torch.nn.init.normal_(agent.slow_value.out.kernel, std=3.0)
    changed = agent.losses(batch, rand)
    torch.testing.assert_close(plain.outputs["return"], changed.outputs["return"])
    assert not torch.allclose(plain.terms["value"], changed.terms["value"])
    torch.nn.init.normal_(agent.value.out.kernel, std=3.0)
    assert not torch.allclose(
        changed.outputs["return"], agent.losses(batch, rand).outputs["return"]
    )


def test_images_are_shifted_to_zero_mean():
    encoder = ImageEncoder(TINY.model, (3, 64, 64))
    grey = torch.full((1, 3, 64, 64), 0.5)
    plain = encoder(grey)
    torch.nn.init.normal_(encoder.convs[0].weight)
    torch.testing.assert_close(encoder(grey), plain)  # a grey image is zero to the first kernel
    assert not torch.allclose(encoder(grey + 0.1), plain)


def test_half_precision_keeps_its_islands_in_float32():
    agent, batch, rand = made(IMAGE, CONTINUOUS)
    with torch.autocast("cpu", torch.bfloat16):
        found = agent.losses(batch, rand)
    for name, term in found.terms.items():
        assert term.dtype == torch.float32, name
    assert found.posterior["deter"].dtype == torch.float32
    assert found.posterior["posterior_logits"].dtype == torch.float32
    assert found.metrics["ret"].dtype == agent.return_norm.high.dtype == torch.float32


def test_imagination_carries_no_gradient():
    agent, batch, rand = made()
    found = agent.losses(batch, rand)
    (found.terms["policy"].mean() + found.terms["value"].mean()).backward()
    assert gradients(agent.world_model) == 0
    assert gradients(agent.policy) > 0
    assert gradients(agent.value) > 0


def test_samples_pass_gradients_straight_through():
    logits = torch.randn(2, 6, 4, requires_grad=True)
    probs = losses.mixed_probs(logits, 0.01)
    sample = categorical.straight_through(probs.argmax(-1), probs)
    assert set(sample.detach().unique().tolist()) == {0.0, 1.0}
    (grad,) = torch.autograd.grad((sample * torch.randn(2, 6, 4)).sum(), logits)
    assert float(grad.abs().sum()) > 0


def test_acting_sees_pixels_as_learning_does():
    agent, *_ = made(IMAGE, DISCRETE)
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    encoder = agent.world_model.observation_encoder
    scaled = encoder({"image": image.float() / 255})["embed"]
    torch.testing.assert_close(encoder({"image": image})["embed"], scaled)
    sequence = encoder({"image": image[:, None]})["embed"][:, 0]
    torch.testing.assert_close(sequence, scaled)


def test_fifteen_imagined_steps_are_sixteen_states():
    agent, batch, rand = made()
    posterior = agent.world_model.observe_sequence(batch, rand=rand)
    imagined, feat, outputs = agent.imagine(posterior, rand.under("imagined/"))
    assert feat.shape[:2] == (24, 16)
    assert imagined.reward.shape == imagined.action.shape == (24, 16)
    assert outputs["deter"].shape == (24, 16, 32)
    found = agent.losses(batch, rand)
    assert found.outputs["return"].shape == (24, 15)
    assert found.terms["policy"].shape == (3, 8)


def test_imagination_starts_at_every_posterior_state():
    agent, batch, rand = made()
    posterior = agent.world_model.observe_sequence(batch, rand=rand)
    _, feat, _ = agent.imagine(posterior, rand.under("imagined/"))
    torch.testing.assert_close(feat[:, 0], features(posterior).detach().flatten(0, 1))


def test_discrete_policies_have_no_unimix_unless_asked():
    logits = torch.tensor([[50.0, -50.0, -50.0, -50.0]])
    for unimix, least in ((0.0, 0.0), (0.01, 0.0025)):
        config = TINY.with_(**{"agent.policy_unimix": unimix})
        agent = DreamerV3Agent(config, VECTOR, DISCRETE)
        torch.nn.init.zeros_(agent.policy.logits.kernel)
        with torch.no_grad():
            agent.policy.logits.bias.copy_(logits[0])
        dist = agent.policy(torch.zeros(1, 32 + 24))
        assert float(dist.log_probs[0].exp().min()) == pytest.approx(least, abs=1e-6)


def test_continue_targets_carry_the_discount():
    target = losses.continue_target(torch.tensor([False, True]), 333, contdisc=True)
    assert target.tolist() == pytest.approx([1 - 1 / 333, 0.0])


def test_heads_start_at_zero_and_the_policy_nearly_uniform():
    agent = DreamerV3Agent(TINY, VECTOR, DISCRETE)
    feat = torch.randn(5, 32 + 24)
    assert agent.value.mean(agent.value(feat)).tolist() == [0.0] * 5
    reward = agent.world_model.decoder_module.reward
    assert reward.mean(reward(feat)).tolist() == [0.0] * 5
    probs = agent.policy(feat).log_probs[0].exp()
    assert float((probs - 0.25).abs().max()) < 0.02

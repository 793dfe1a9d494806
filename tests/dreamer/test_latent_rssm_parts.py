"""Latents, cores, actors and shared losses of the latent RSSM against slow, obvious references."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import ConfigError
from worldflux.specs import TensorSpec
from worldflux_dreamer.latent_rssm import actors
from worldflux_dreamer.latent_rssm.config import LatentConfig
from worldflux_dreamer.latent_rssm.cores import CORES, NormGRUCell
from worldflux_dreamer.latent_rssm.latents import Categorical, Gaussian, detached, latent_noise
from worldflux_dreamer.latent_rssm.losses import freed, lambda_targets, normal_loss, reach_weights
from worldflux_dreamer.latent_rssm.rssm import RSSM, features

SMALL: dict[str, Any] = {"deter": 16, "hidden": 12, "stoch": 4, "classes": 3, "blocks": 4}
CONTINUOUS, CHOICE = TensorSpec((2,), low=-1.0, high=1.0), TensorSpec((), "int64", n=3)
SEVERAL = TensorSpec((2,), "int64", n=(2, 3))


# Latents


def test_gaussian_kl_is_from_left_to_right() -> None:
    latent = Gaussian(3, 0.1, "softplus")
    left, right = latent.stats(torch.randn(5, 6)), latent.stats(torch.randn(5, 6))
    normals = [td.Independent(td.Normal(s["mean"], s["std"]), 1) for s in (left, right)]
    torch.testing.assert_close(latent.kl(left, right), td.kl_divergence(*normals))
    assert not torch.allclose(latent.kl(left, right), latent.kl(right, left))


@pytest.mark.parametrize(
    ("squash", "at_zero"), [("softplus", math.log(2) + 0.1), ("sigmoid2", 1.1)]
)
def test_gaussian_std_is_bounded_below(squash: str, at_zero: float) -> None:
    latent = Gaussian(1, 0.1, squash)
    assert latent.stats(torch.zeros(1, 2))["std"].item() == pytest.approx(at_zero)
    assert latent.stats(torch.full((1, 2), -60.0))["std"].item() == pytest.approx(0.1)


def test_categorical_kl_sums_over_groups() -> None:
    latent = Categorical(2, 3)
    left, right = latent.stats(torch.randn(5, 6)), latent.stats(torch.randn(5, 6))
    dists = [td.Independent(td.Categorical(logits=s["logit"]), 1) for s in (left, right)]
    torch.testing.assert_close(latent.kl(left, right), td.kl_divergence(*dists))


def test_categorical_samples_are_one_hot_with_the_gradient_of_the_probabilities() -> None:
    latent, output = Categorical(2, 3), torch.randn(5, 6, requires_grad=True)
    stats = latent.stats(output)
    noise = latent_noise(latent, (5,), output.device, None)
    sample, weights = latent.sample(stats, noise), torch.randn(5, 2, 3)
    torch.testing.assert_close(sample.sum(-1), torch.ones(5, 2))
    assert set(sample.detach().round(decimals=5).unique().tolist()) <= {0.0, 1.0}
    (ours,) = torch.autograd.grad((sample * weights).sum(), output, retain_graph=True)
    probs = torch.softmax(stats["logit"], -1)
    (theirs,) = torch.autograd.grad((probs * weights).sum(), output)
    torch.testing.assert_close(ours, theirs)


def test_samples_follow_the_distribution() -> None:
    latent, logits = Categorical(1, 3), torch.tensor([[0.0, 1.0, 2.0]])
    noise = torch.rand(20_000, 1)
    stats = {"logit": logits.expand(20_000, 1, 3)}
    found = latent.sample(stats, noise).mean((0, 1))
    torch.testing.assert_close(found, torch.softmax(logits[0], -1), atol=0.015, rtol=0)


def test_detached_stats_take_no_gradient() -> None:
    stats = Gaussian(2, 0.1, "softplus").stats(torch.randn(1, 4, requires_grad=True))
    assert not any(value.requires_grad for value in detached(stats).values())


# Cores


def test_norm_gru_cell_is_the_papers() -> None:
    cell = NormGRUCell(5, 4)
    x, deter = torch.randn(3, 5), torch.randn(3, 4)
    gates = cell.gates.weight @ torch.cat([x, deter], -1).T + cell.gates.bias[:, None]
    gates = gates.T
    gates = (gates - gates.mean(-1, keepdim=True)) / (
        gates.var(-1, correction=0, keepdim=True) + 1e-3
    ).sqrt()
    reset, cand, update = gates.split(4, -1)
    update = torch.sigmoid(update - 1)
    expected = update * torch.tanh(torch.sigmoid(reset) * cand) + (1 - update) * deter
    torch.testing.assert_close(cell(x, deter), expected)


def test_norm_gru_keeps_most_of_its_memory_at_first() -> None:
    cell = NormGRUCell(5, 4)
    torch.nn.init.zeros_(cell.gates.weight)
    kept = cell(torch.randn(3, 5), torch.ones(3, 4))
    torch.testing.assert_close(kept, torch.full((3, 4), 1 - torch.sigmoid(torch.tensor(-1.0))))


@pytest.mark.parametrize("core", ["gru", "norm_gru", "lstm"])
def test_splitting_the_input_layer_changes_nothing(core: str) -> None:
    module = CORES[core](LatentConfig(core=core, **SMALL), 4, 2)
    stoch, action, memory = (
        torch.randn(3, 4),
        torch.randn(3, 2),
        module.initial(3, torch.device("cpu")),
    )
    seen: list[Tensor] = []
    module.cell.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module(memory, stoch, module.action_input(action))
    whole = module.activation(module.input(torch.cat([stoch, action], -1)))
    torch.testing.assert_close(seen[0], whole)


# RSSM


def rssm(latent: str, core: str) -> RSSM:
    return RSSM(LatentConfig(latent=latent, core=core, **SMALL), core, 2, 6)  # type: ignore[arg-type]


@pytest.mark.parametrize("core", sorted(CORES))
@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_the_sequence_form_equals_steps(latent: str, core: str) -> None:
    module = rssm(latent, core)
    embed, action = torch.randn(2, 5, 6), torch.randn(2, 5, 2)
    first = torch.zeros(2, 5, dtype=torch.bool)
    first[:, 0], first[0, 3] = True, True
    noise = latent_noise(module.latent, (2, 5), embed.device, None)
    rand = Rand(draws={"stoch": noise})
    start = module.initial(2, embed.device)
    whole = module.observe_sequence(start, action, State({"embed": embed}), first, rand=rand)
    state = start
    for t in range(5):
        seen, now = State({"embed": embed[:, t]}), rand.at(t, dim=1)
        state = module.observe(state, action[:, t], seen, first[:, t], rand=now)
        for key, value in state.tensors.items():
            torch.testing.assert_close(whole[key][:, t], value)


@pytest.mark.parametrize("core", sorted(CORES))
def test_a_reset_forgets_state_and_action_of_its_row_only(core: str) -> None:
    module = rssm("gaussian", core)
    embed, action = State({"embed": torch.randn(2, 6)}), torch.randn(2, 2)
    state = module.transition(module.initial(2, action.device), action)
    first = torch.tensor([True, False])
    rand = Rand(draws={"stoch": torch.zeros(2, 4)})
    reset = module.observe(state, action, embed, first, rand=rand)
    kept = module.observe(state, action, embed, ~first & False, rand=rand)
    zero = module.initial(2, action.device)
    fresh = module.observe(zero, torch.zeros(2, 2), embed, first, rand=rand)
    for key in reset.tensors:
        torch.testing.assert_close(reset[key][0], fresh[key][0])
        torch.testing.assert_close(reset[key][1], kept[key][1])
    assert not torch.allclose(reset["deter"][0], kept["deter"][0])


def test_the_prior_sees_no_observation_and_the_posterior_does() -> None:
    module = rssm("gaussian", "gru")
    start, action = module.initial(1, torch.device("cpu")), torch.randn(1, 2)
    first = torch.tensor([False])
    states = [
        module.observe(
            start, action, State({"embed": torch.randn(1, 6)}), first, deterministic=True
        )
        for _ in range(2)
    ]
    priors = [module.prior(state)["mean"] for state in states]
    torch.testing.assert_close(priors[0], priors[1])
    assert not torch.allclose(states[0]["mean"], states[1]["mean"])
    imagined = module.transition(start, action, deterministic=True)
    torch.testing.assert_close(imagined["stoch"], priors[0])


def test_features_are_deter_then_stoch() -> None:
    state = State({"deter": torch.zeros(2, 5, 3), "stoch": torch.ones(2, 5, 2, 4)})
    feat = features(state)
    assert feat.shape == (2, 5, 11)
    assert feat[..., :3].sum() == 0


def test_blocks_must_divide_the_deterministic_state() -> None:
    with pytest.raises(ConfigError, match="deter=18 is not a multiple of blocks"):
        RSSM(LatentConfig(deter=18, blocks=4), "block_gru", 2, 6)


# Actors


def actor(kind: str, spec: TensorSpec = CONTINUOUS) -> actors.Actor:
    wide = kind == "tanh_normal"
    return actors.Actor(
        6, spec, kind, 8, 2, "elu", 1e-4 if wide else 0.1,  # type: ignore[arg-type]
        init_std=5.0 if wide else 0.0, mean_scale=5.0 if wide else 1.0,
    )  # fmt: skip


def test_the_tanh_normal_starts_wide_and_keeps_its_mean_bounded() -> None:
    module = actor("tanh_normal")
    torch.nn.init.zeros_(module.out.weight)
    dist = module(torch.randn(3, 6))
    assert isinstance(dist, actors.TanhNormal)
    torch.testing.assert_close(dist.std, torch.full((3, 2), 5.0 + 1e-4))
    torch.nn.init.constant_(module.out.bias, 1e4)
    assert module(torch.randn(3, 6)).mean.abs().max() <= 5


def test_tanh_normal_density_has_the_squashing_correction() -> None:
    mean, std = torch.randn(4, 2), torch.rand(4, 2) + 0.2
    dist = actors.TanhNormal(mean, std)
    base = td.TransformedDistribution(td.Normal(mean, std), td.TanhTransform())
    action = dist.sample(Rand())
    torch.testing.assert_close(
        dist.log_prob(action), td.Independent(base, 1).log_prob(action), atol=1e-3, rtol=1e-3
    )


def test_the_mode_of_a_tanh_normal_is_its_likeliest_sample() -> None:
    dist = actors.TanhNormal(torch.randn(3, 2), torch.full((3, 2), 0.3))
    noise = torch.randn(3, actors.MODE_SAMPLES, 2)
    best = dist.mode(Rand(draws={"action_noise": noise}))
    samples = [dist.sample(Rand(draws={"action_noise": x})) for x in noise.unbind(1)]
    for row in range(3):
        scores = [dist.log_prob(samples[i])[row].item() for i in range(100)]
        torch.testing.assert_close(best[row], samples[scores.index(max(scores))][row])


def numeric(dist: actors.TruncatedNormal) -> tuple[Tensor, Tensor, Tensor]:
    """Grid, density and cell width of a one-dimensional truncated normal by brute force."""
    grid = torch.linspace(-1, 1, 200_001)[:, None]
    density = torch.exp(-0.5 * ((grid - dist.mean) / dist.std).square())
    width = 2 / 200_000
    return grid, density / (density.sum() * width), torch.tensor(width)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (0.9, 0.1), (-0.5, 2.1)])
def test_the_truncated_normal_is_one(mean: float, std: float) -> None:
    dist = actors.TruncatedNormal(torch.tensor([mean]), torch.tensor([std]))
    grid, density, width = numeric(dist)
    at = torch.tensor([[-0.7], [0.1], [0.8]])
    nearest = (at + 1).div(width).round().long().flatten()
    torch.testing.assert_close(dist.log_prob(at).exp(), density[nearest, 0], atol=1e-3, rtol=1e-3)
    entropy = -(density * density.clamp(min=1e-30).log()).sum() * width
    torch.testing.assert_close(dist.entropy(), entropy, atol=1e-3, rtol=1e-3)
    samples = actors.TruncatedNormal(*(x.expand(40_000, 1) for x in (dist.mean, dist.std)))
    samples = samples.sample(Rand())
    assert bool((samples.abs() < 1).all())
    torch.testing.assert_close(samples.mean(), (grid * density).sum() * width, atol=0.02, rtol=0)


def test_truncated_samples_carry_the_gradient_of_the_mean() -> None:
    mean = torch.tensor([0.3], requires_grad=True)
    rand = Rand(draws={"action_noise": torch.rand(2000, 1)})

    def average(at: Tensor) -> Tensor:
        whole = actors.TruncatedNormal(at.expand(2000, 1), torch.full((2000, 1), 0.4))
        return whole.sample(rand).mean()

    (ours,) = torch.autograd.grad(average(mean), mean)
    low, high = (average(mean.detach() + d) for d in (-0.01, 0.01))
    torch.testing.assert_close(ours[0], (high - low) / 0.02, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("spec", [CHOICE, SEVERAL])
def test_choices_are_one_hots_with_straight_through_gradients(spec: TensorSpec) -> None:
    module = actor("tanh_normal", spec)
    feat = torch.randn(4, 6)
    action = module(feat).sample(Rand())
    assert action.shape == (4, spec.size)
    (action * torch.randn(4, spec.size)).sum().backward()
    assert module.out.weight.grad is not None
    assert module.out.weight.grad.abs().sum() > 0
    taken = actors.to_env(action, spec)
    assert taken.shape == (4, *spec.shape)
    parts = taken.reshape(4, -1).unbind(-1)
    logs = [torch.log_softmax(logit, -1) for logit in module(feat).logits]
    expected = sum(log.gather(-1, p[:, None])[:, 0] for log, p in zip(logs, parts, strict=True))
    torch.testing.assert_close(module(feat).log_prob(action.detach()), expected)
    dists = [td.Categorical(logits=logit) for logit in module(feat).logits]
    torch.testing.assert_close(module(feat).entropy(), sum(d.entropy() for d in dists))
    assert torch.equal(actors.to_env(module(feat).mode(), spec).reshape(4, -1)[:, 0],
                       module(feat).logits[0].argmax(-1))  # fmt: skip


def test_exploration_adds_clipped_noise_or_random_choices() -> None:
    noise = Rand(draws={"explore": torch.tensor([[1.0, -9.0]])})
    moved = actors.explored(torch.tensor([[0.2, -0.5]]), CONTINUOUS, 0.3, noise)
    torch.testing.assert_close(moved, torch.tensor([[0.5, -1.0]]))
    uniform = Rand(draws={"explore": torch.tensor([[[0.1, 0.99]], [[0.9, 0.0]]])})
    chosen = actors.explored(torch.tensor([0, 1]), CHOICE, 0.5, uniform)
    assert chosen.tolist() == [2, 1]


# Losses


def slow_targets(reward: Tensor, discount: Tensor, value: Tensor, lam: float) -> Tensor:
    """The recursion as the papers write it, one number at a time."""
    returns = torch.zeros_like(reward)
    for n in range(reward.shape[0]):
        after = value[n, -1]
        for t in reversed(range(reward.shape[1])):
            after = reward[n, t] + discount[n, t] * ((1 - lam) * value[n, t + 1] + lam * after)
            returns[n, t] = after
    return returns


@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
def test_lambda_targets(lam: float) -> None:
    reward, discount, value = torch.randn(3, 5), torch.rand(3, 5), torch.randn(3, 6)
    ours = lambda_targets(reward, discount, value, lam)
    torch.testing.assert_close(ours, slow_targets(reward, discount, value, lam))


def test_reach_weights_lag_by_one_step() -> None:
    """The weight of a state is the product of the discounts *before* it."""
    discount = torch.tensor([[0.9, 0.5, 0.0, 0.7]])
    expected = torch.tensor([[1.0, 0.9, 0.45, 0.0, 0.0]])
    torch.testing.assert_close(reach_weights(torch.ones(1), discount), expected)
    assert reach_weights(torch.zeros(1), discount).sum() == 0


def test_normal_loss_sums_over_the_event() -> None:
    mean, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    normal = td.Independent(td.Normal(mean, 1.0), 2)
    constant = 0.5 * math.log(2 * math.pi) * 20
    torch.testing.assert_close(normal_loss(mean, target, 2), -normal.log_prob(target) - constant)
    assert normal_loss(mean, target, 0).shape == mean.shape


def test_free_nats_clip_only_what_they_name() -> None:
    means = {"kl": torch.tensor(2.0, requires_grad=True), "reward": torch.tensor(0.5)}
    clipped = freed(means, ("kl",), 3.0)
    assert clipped["kl"].item() == 3.0
    assert clipped["reward"].item() == 0.5
    assert torch.autograd.grad(clipped["kl"], means["kl"])[0] == 0

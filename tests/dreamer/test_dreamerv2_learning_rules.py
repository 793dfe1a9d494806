"""DreamerV2: balanced KL, estimators, target critic, against slow references."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.factory import create_agent, create_config
from worldflux.specs import TensorSpec
from worldflux.testing import check_family
from worldflux.testing.batches import random_batch
from worldflux_dreamer.dreamerv2 import losses
from worldflux_dreamer.dreamerv2.agent import DreamerV2Agent
from worldflux_dreamer.latent_rssm.agent import Imagined
from worldflux_dreamer.latent_rssm.losses import transformed_reward

IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
GREY = {"image": TensorSpec((1, 64, 64), "uint8", low=0, high=255)}
VECTOR, CONTINUOUS = {"state": TensorSpec((5,))}, {"action": TensorSpec((2,), low=-1.0, high=1.0)}
CHOICE = {"action": TensorSpec((), "int64", n=3)}
TINY: dict[str, Any] = {
    "model.deter": 16, "model.hidden": 12, "model.stoch": 4, "model.classes": 3,
    "model.units": 16, "agent.horizon": 5,
}  # fmt: skip


def agent(
    preset: str = "dmc", action: dict[str, TensorSpec] = CONTINUOUS, **options: Any
) -> DreamerV2Agent:
    options = {**TINY, **options}
    made = create_agent(f"dreamerv2:{preset}", obs_spec=VECTOR, action_spec=action, **options)
    assert isinstance(made, DreamerV2Agent)
    return made


def batch(action: dict[str, TensorSpec] = CONTINUOUS) -> Batch:
    return random_batch(VECTOR, action, batch=3, length=8)


def imagined(learner: DreamerV2Agent, action: dict[str, TensorSpec] = CONTINUOUS) -> Imagined:
    data = batch(action)
    posterior = learner.world_model.observe_sequence(data, rand=Rand.seeded(1))
    return learner.imagine(posterior, data.is_terminal, Rand.seeded(2))


@pytest.mark.parametrize("preset", ["dmc", "atari"])
def test_conformance(preset: str) -> None:
    check_family(f"dreamer_v2:{preset}", learn=False, **TINY)


@pytest.mark.parametrize(
    ("preset", "obs", "size", "counts"),
    [
        ("dmc", IMAGE, {"action_dim": 6}, (13_656_772, 15_604_385)),
        ("atari", GREY, {"action_dim": 18, "discrete": True}, (19_975_379, 22_245_398)),
    ],
)
def test_parameter_counts(
    preset: str, obs: dict[str, TensorSpec], size: dict[str, Any], counts: tuple[int, int]
) -> None:
    """The paper's table of compute says 22 million for Atari."""
    with torch.device("meta"):
        made = create_agent(f"dreamerv2:{preset}", obs_spec=obs, **size)
    assert (made.world_model.parameter_count(), made.parameter_count()) == counts


def test_the_atari_preset_has_the_papers_numbers() -> None:
    config = create_config("dreamerv2:atari")
    model, acting = config.model, config.agent  # type: ignore[attr-defined]
    assert (model.stoch, model.classes, model.deter) == (32, 32, 600)
    assert (model.balance, model.scale_kl, model.discount, model.free_nats) == (0.8, 0.1, 0.995, 0)
    assert (acting.batch, acting.length, acting.horizon, acting.slow_every) == (50, 50, 15, 100)
    assert (acting.model_lr, acting.actor_lr, acting.critic_lr) == (2e-4, 4e-5, 1e-4)


def test_the_atari_preset_oversamples_the_ends_of_episodes() -> None:
    """As the published one; the other preset draws uniformly from all steps."""
    with torch.device("meta"):
        atari = create_agent("dreamerv2:atari", obs_spec=GREY, action_dim=18, discrete=True)
        dmc = create_agent("dreamerv2:dmc", obs_spec=IMAGE, action_dim=6)
    (phase,), (plain,) = atari.training_plan().phases, dmc.training_plan().phases
    assert (phase.boundary, phase.weights, phase.ends) == ("within", (1.0,), "oversampled")
    assert (plain.boundary, plain.weights, plain.ends) == ("cross", None, "uniform")
    assert (phase.batch, phase.updates_per_step, phase.trains) == (
        50,
        0.25,
        tuple(atari.optimizers),
    )
    assert atari.training_plan().prefill == 50_000


# The balanced KL


def test_the_kl_trains_prior_and_posterior_in_its_shares() -> None:
    """Gradients are alpha and 1 - alpha of those of the plain KL, its value is the plain KL."""
    world = agent(**{"model.free_nats": 0.0}).world_model
    raw = [torch.randn(3, 8, 12, requires_grad=True) for _ in range(2)]
    post, prior = ({"logit": x.unflatten(-1, (4, 3))} for x in raw)
    terms = world.divergences(post, prior)
    scales = world.loss_scales()
    total = sum(scales[name] * term for name, term in terms.items())
    kl = world.latent.kl(post, prior)
    torch.testing.assert_close(total, kl)
    ours = torch.autograd.grad(total.sum(), raw, retain_graph=True)  # type: ignore[union-attr]
    plain = torch.autograd.grad(kl.sum(), raw)
    torch.testing.assert_close(ours[0], 0.2 * plain[0])
    torch.testing.assert_close(ours[1], 0.8 * plain[1])


def test_free_nats_clip_the_mean_of_each_side() -> None:
    free = agent(**{"model.free_nats": 50.0}).world_model.loss(batch(), rand=Rand.seeded(0))
    assert free.components["dyn"].item() == 50.0
    assert free.components["rep"].item() == 50.0


# Rewards


def test_the_model_learns_transformed_rewards() -> None:
    reward = torch.tensor([-3.0, 0.0, 0.5])
    assert torch.equal(transformed_reward(reward, "identity"), reward)
    torch.testing.assert_close(transformed_reward(reward, "tanh"), reward.tanh())
    assert torch.equal(transformed_reward(reward, "sign"), reward.sign())
    data = batch(CHOICE)
    seen = agent("atari", CHOICE).world_model.targets(data).reward
    torch.testing.assert_close(seen, data.reward.tanh())


# Behaviour


def test_the_estimator_follows_the_action_space() -> None:
    assert agent().mix == 1.0
    assert agent(action=CHOICE).mix == 0.0
    assert agent(**{"agent.gradient": "both"}).mix == 0.1
    assert agent(**{"agent.gradient": "reinforce"}).mix == 0.0
    assert agent(action=CHOICE, **{"agent.gradient": "dynamics"}).mix == 1.0


def test_the_objective_mixes_both_estimators() -> None:
    log_prob, target, baseline = (torch.randn(2, 3, requires_grad=True) for _ in range(3))
    reinforce = losses.actor_objective(log_prob, target, baseline, 0.0)
    torch.testing.assert_close(reinforce, log_prob * (target - baseline))
    gradients = torch.autograd.grad(reinforce.sum(), [log_prob, target], allow_unused=True)
    assert gradients[1] is None  # the advantage is a number
    assert losses.actor_objective(log_prob, target, baseline, 1.0) is target
    both = losses.actor_objective(log_prob, target, baseline, 0.1)
    torch.testing.assert_close(both, 0.1 * target + 0.9 * reinforce)


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics", "both"])
def test_behaviour_losses_equal_a_slow_reference(gradient: str) -> None:
    """Sums over states as in the diagram of the published agent, one number at a time."""
    learner = agent(**{"agent.gradient": gradient, "agent.entropy": 0.3})
    path = imagined(learner)
    actor, seen, _ = learner.actor_loss(path)
    critic, _ = learner.critic_loss(seen)
    n, h = path.reward.shape
    root = learner.world_model.decode(path.start).predictions["reward"]
    policy = learner.actor(path.feat[:, :-2])
    log_prob, entropy = policy.log_prob(path.action[:, :-1]), policy.entropy()  # type: ignore[call-arg]
    slow, value = learner.slow_critic(path.feat)[..., 0], learner.critic(path.feat)[..., 0]
    actor_sum, critic_sum = torch.zeros(()), torch.zeros(())
    for row in range(n):
        rewards = [root[row], *path.reward[row]]
        discounts = [0.99 * path.live[row], *path.going_on[row]]
        weights = [torch.ones(())]
        for discount in discounts[:-1]:
            weights.append(weights[-1] * discount)
        targets = [slow[row, h]]
        for t in reversed(range(h)):
            mixed = 0.05 * slow[row, t + 1] + 0.95 * targets[0]
            targets.insert(0, rewards[t] + discounts[t] * mixed)
        for t in range(h):
            critic_sum = critic_sum + weights[t] * 0.5 * (value[row, t] - targets[t]) ** 2
        for t in range(h - 1):
            score = log_prob[row, t] * (targets[t + 1] - slow[row, t])
            goal = learner.mix * targets[t + 1] + (1 - learner.mix) * score
            actor_sum = actor_sum - weights[t] * (goal + 0.3 * entropy[row, t])
    torch.testing.assert_close(actor, actor_sum / (n * (h - 1)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(critic, critic_sum / (n * h), rtol=1e-4, atol=1e-5)


def test_reinforce_moves_the_likelihood_of_the_action_taken() -> None:
    """With the advantage of every action +1, the gradient is that of the log likelihood."""
    learner = agent("atari", CHOICE, **{"agent.entropy": 0.0})
    path = imagined(learner, CHOICE)
    flat = torch.zeros_like(path.reward)
    with torch.no_grad():
        for head in (learner.slow_critic, learner.world_model.decoder_module.reward):  # type: ignore[union-attr]
            head.out.weight.zero_()  # type: ignore[union-attr]
            head.out.bias.zero_()  # type: ignore[union-attr]
    path = replace(path, reward=flat + 1, going_on=flat, live=torch.zeros_like(path.live) + 1)
    actor, _, _ = learner.actor_loss(path)
    ours = torch.autograd.grad(actor, learner.actor.out.bias, retain_graph=True)[0]
    logs = torch.log_softmax(learner.actor(path.feat[:, :-2].detach()).logits[0], -1)
    taken = (logs * path.action[:, :-1].detach()).sum(-1)
    weight = torch.zeros_like(taken)
    weight[:, 0], weight[:, 1] = 1.0, 0.995
    expected = torch.autograd.grad(-(weight * taken).mean(), learner.actor.out.bias)[0]
    torch.testing.assert_close(ours, expected)


def test_the_target_is_copied_after_updates_1_101_201() -> None:
    learner = agent(**{"agent.slow_every": 3})
    copied = []
    for _ in range(8):
        learner.update(batch(), "train", rand=Rand.seeded(0))
        pairs = zip(learner.critic.parameters(), learner.slow_critic.parameters(), strict=True)
        copied.append(all(torch.equal(a, b) for a, b in pairs))
    assert copied == [True, False, False, True, False, False, True, False]


def test_weights_decay_by_a_fixed_share() -> None:
    """Not multiplied by the learning rate: without gradient an update scales by 1 - decay."""
    learner = agent(**{"agent.decay": 0.01})
    weight = learner.critic.out.weight
    before = weight.detach().clone()
    for param in learner.critic.parameters():
        param.grad = torch.zeros_like(param)
    learner.optimizers["critic"].step()
    torch.testing.assert_close(weight.detach(), 0.99 * before)


def test_a_terminal_start_counts_only_for_itself() -> None:
    """What follows a terminal step has no weight; the step's own value is still learned."""
    learner = agent()
    path = replace(imagined(learner), live=torch.zeros(24))
    critic, _ = learner.critic_loss(learner.actor_loss(path)[1])
    slow_reward = learner.world_model.decode(path.start).predictions["reward"]
    error = 0.5 * (learner.value(path.feat[:, 0]) - slow_reward).square()
    torch.testing.assert_close(critic, error.mean() / path.reward.shape[1])

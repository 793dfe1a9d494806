"""DreamerV1: its losses against slow references, its gradients, and mistakes others made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.factory import create_agent
from worldflux.specs import TensorSpec
from worldflux.testing import check_family
from worldflux.testing.batches import random_batch
from worldflux_dreamer.dreamerv1 import losses
from worldflux_dreamer.dreamerv1.agent import DreamerV1Agent
from worldflux_dreamer.dreamerv1.world_model import DreamerV1WorldModel

IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
VECTOR, CONTINUOUS = {"state": TensorSpec((5,))}, {"action": TensorSpec((2,), low=-1.0, high=1.0)}
CHOICE = {"action": TensorSpec((), "int64", n=3)}
TINY: dict[str, Any] = {
    "model.deter": 16, "model.hidden": 12, "model.stoch": 4, "model.units": 16, "agent.horizon": 5,
}  # fmt: skip


def agent(action: dict[str, TensorSpec] = CONTINUOUS, **options: Any) -> DreamerV1Agent:
    made = create_agent("dreamerv1", obs_spec=VECTOR, action_spec=action, **{**TINY, **options})
    assert isinstance(made, DreamerV1Agent)
    return made


def model(**options: Any) -> DreamerV1WorldModel:
    made = agent(**options).world_model
    assert isinstance(made, DreamerV1WorldModel)
    return made


def batch(action: dict[str, TensorSpec] = CONTINUOUS, **options: Any) -> Batch:
    return random_batch(VECTOR, action, **{"batch": 3, "length": 8, **options})


def loss(world_model: DreamerV1WorldModel, data: Batch) -> dict[str, Tensor]:
    output = world_model.loss(data, rand=Rand.seeded(3))
    return {**output.components, "total": output.loss}


def test_conformance() -> None:
    assert "check_slots_take_effect" in check_family("dreamer-v1:dmc", learn=False, **TINY)


def test_conformance_with_a_discount_head() -> None:
    check_family("dreamerv1:discrete", learn=False, **TINY)


def test_parameter_counts() -> None:
    """The dmc preset by hand: layers of the paper, 64x64 pixels, 6-dimensional actions."""

    def dense(a: int, b: int) -> int:
        return a * b + b

    convs = sum(a * b * 16 + b for a, b in ((3, 32), (32, 64), (64, 128), (128, 256)))
    feat, stats, gru = 230, 60, 3 * (200 * 200 + 200 * 200 + 2 * 200)
    rssm = dense(36, 200) + gru + 2 * dense(200, stats) + dense(200, 200) + dense(1224, 200)
    ups = ((1024, 128, 5), (128, 64, 5), (64, 32, 6), (32, 3, 6))
    decoder = dense(feat, 1024) + sum(a * b * k * k + b for a, b, k in ups)

    def head(layers: int, out: int) -> int:
        return dense(feat, 400) + (layers - 1) * dense(400, 400) + dense(400, out)

    world = convs + rssm + decoder + head(2, 1)
    with torch.device("meta"):
        made = create_agent("dreamerv1", obs_spec=IMAGE, action_dim=6)
    assert made.world_model.parameter_count() == world == 5_296_820
    assert made.parameter_count() == world + head(4, 12) + head(3, 1) == 6_288_833


@pytest.mark.parametrize(
    ("preset", "choices", "counts"),
    [("dmc", False, (5_296_820, 6_288_833)), ("discrete", True, (5_712_821, 6_707_240))],
)
def test_every_preset_has_its_published_count(
    preset: str, choices: bool, counts: tuple[int, int]
) -> None:
    action = {"action": TensorSpec((), "int64", n=18)} if choices else None
    spaces: dict[str, Any] = {"action_spec": action} if action else {"action_dim": 6}
    with torch.device("meta"):
        made = create_agent(f"dreamerv1:{preset}", obs_spec=IMAGE, **spaces)
    assert (made.world_model.parameter_count(), made.parameter_count()) == counts


# The world model's loss


def slow_loss(world_model: DreamerV1WorldModel, data: Batch, rand: Rand) -> Tensor:
    """Step by step, with library distributions."""
    rows, steps = data.reward.shape
    nats, log_probs = [], []
    state = world_model.initial(rows)
    action = torch.zeros_like(data.action[:, 0])
    for t in range(steps):
        obs = {key: value[:, t] for key, value in data.obs.items()}
        now = rand.at(t, dim=1)
        state = world_model.observe(state, action, obs, data.is_first[:, t], rand=now)
        prior = world_model.dynamics_model.prior(state)  # type: ignore[union-attr,operator]
        post = td.Independent(td.Normal(state["mean"], state["std"]), 1)
        nats.append(
            td.kl_divergence(post, td.Independent(td.Normal(prior["mean"], prior["std"]), 1))
        )
        seen = world_model.decode(state)
        log_probs.append(-0.5 * (seen.predictions["state"] - obs["state"]).square().sum(-1))
        log_probs.append(-0.5 * (seen.predictions["reward"] - data.reward[:, t]).square())
        action = data.action[:, t]
    kl = torch.stack(nats).mean().clamp(min=world_model.config.model.free_nats)  # type: ignore[attr-defined]
    return kl - torch.stack(log_probs).sum() / (rows * steps)


def test_the_loss_equals_a_slow_reference() -> None:
    world_model, data = model(**{"model.free_nats": 0.5}), batch()
    rand = Rand(draws={"stoch": torch.randn(3, 8, 4)})
    ours = world_model.loss(data, rand=rand).loss
    torch.testing.assert_close(ours, slow_loss(world_model, data, rand))


def test_free_nats_apply_to_the_mean_over_the_batch() -> None:
    world_model, data = model(), batch()
    free = loss(world_model, data)["kl"]
    assert free.item() == 3.0
    gradient = torch.autograd.grad(
        free, list(world_model.dynamics_model.parameters()), allow_unused=True  # type: ignore[union-attr]
    )  # fmt: skip
    assert not any(g is not None and g.any() for g in gradient)
    nats = loss(model(**{"model.free_nats": 0.0}), data)["kl"]
    assert 0 < nats.item() < 3


def test_the_last_step_of_an_episode_counts() -> None:
    """Its observation, reward and terminal flag belong to it, not to the next episode's start."""
    world_model, data = model(**{"model.continue_head": True}), batch()
    last = data.is_terminal.nonzero()[0]
    plain = loss(world_model, data)
    reward = data.reward.clone()
    reward[tuple(last)] += 5
    changed = loss(world_model, replace(data, reward=reward))
    assert changed["reward"] != plain["reward"]
    assert changed["continue"] == plain["continue"]
    alive = loss(world_model, replace(data, is_terminal=torch.zeros_like(data.is_terminal)))
    assert alive["continue"] != plain["continue"]
    assert alive["reward"] == plain["reward"]


def test_a_time_limit_is_no_end() -> None:
    world_model, data = model(**{"model.continue_head": True}), batch()
    limit = replace(data, is_terminal=torch.zeros_like(data.is_terminal))
    free = replace(limit, is_last=torch.zeros_like(data.is_last))
    assert loss(world_model, limit)["continue"] == loss(world_model, free)["continue"]


def test_the_continue_head_learns_the_discount() -> None:
    world_model, data = model(**{"model.continue_head": True}), batch()
    posterior = world_model.observe_sequence(data, rand=Rand.seeded(3))
    logit = world_model.decode(posterior).aux["continue"]
    target = 0.99 * (~data.is_terminal).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, target)
    torch.testing.assert_close(loss(world_model, data)["continue"], expected)


def test_without_the_head_everything_continues_with_the_discount() -> None:
    world_model = model()
    predicted = world_model.decode(world_model.initial(2)).predictions["continue"]
    torch.testing.assert_close(predicted, torch.full((2,), 0.99))
    assert "continue" not in loss(world_model, batch())


def test_rewards_of_discrete_tasks_are_bounded() -> None:
    made = create_agent("dreamerv1:discrete", obs_spec=VECTOR, action_spec=CHOICE, **TINY)
    data = replace(batch(CHOICE), reward=7 * batch(CHOICE).require("reward"))
    learned = made.world_model.targets(data).reward
    torch.testing.assert_close(learned, data.require("reward").tanh())
    assert model().targets(data).reward is data.reward


# Behaviour


def test_returns_and_weights_are_those_of_imagined_states() -> None:
    reward, going_on, value = torch.randn(2, 5), torch.rand(2, 5), torch.randn(2, 5)
    live = torch.tensor([1.0, 0.0])
    returns, weight = losses.imagined_returns(reward, going_on, value, live, 0.9)
    after, expected = value[:, 4], torch.zeros(2, 4)
    for t in reversed(range(4)):
        after = reward[:, t] + going_on[:, t] * (0.1 * value[:, t + 1] + 0.9 * after)
        expected[:, t] = after
    torch.testing.assert_close(returns, expected)
    lagged = torch.stack([torch.ones(2), *(going_on[:, :k].prod(1) for k in (1, 2, 3))], 1)
    torch.testing.assert_close(weight, lagged * live[:, None])


@pytest.mark.parametrize("action", [CONTINUOUS, CHOICE])
def test_the_actor_learns_through_the_dynamics(action: dict[str, TensorSpec]) -> None:
    """Nudging the actor changes its loss as the gradient says, draws being fixed.

    The actor ignores its features here: no gradient is meant to flow through what it sees.
    """
    learner = agent(action)
    torch.nn.init.zeros_(learner.actor.out.weight)
    data = batch(action)
    with torch.no_grad():
        posterior = learner.world_model.observe_sequence(data, rand=Rand.seeded(0))

    def actor_loss() -> Tensor:
        imagined = learner.imagine(posterior, data.is_terminal, Rand.seeded(0))
        return learner.actor_loss(imagined)[0]

    (gradient,) = torch.autograd.grad(actor_loss(), [learner.actor.out.bias])
    assert gradient.abs().sum() > 0
    if action is CHOICE:
        return  # straight-through: a nudge changes nothing until a choice flips
    with torch.no_grad():
        step = 0.05 * gradient / gradient.norm()
        learner.actor.out.bias += step
        high = actor_loss()
        learner.actor.out.bias -= 2 * step
        low = actor_loss()
    torch.testing.assert_close((high - low) / 0.1, gradient.norm(), rtol=0.05, atol=1e-4)


def test_each_optimiser_moves_its_own_part_only() -> None:
    learner = agent()
    for name in ("actor", "critic"):
        before = {key: p.detach().clone() for key, p in learner.named_parameters()}
        others = [optimizer for key, optimizer in learner.optimizers.items() if key != name]
        for group in (group for optimizer in others for group in optimizer.param_groups):
            group["lr"] = 0.0
        learner.update(batch(), rand=Rand.seeded(0))
        moved = {k for k, p in learner.named_parameters() if not torch.equal(p, before[k])}
        assert moved and all(key.startswith(name) for key in moved)
        learner = agent()


def test_all_three_learn_under_the_weights_before_the_update() -> None:
    """Gradients of one update are those of the three losses of an unchanged agent."""
    learner, data = agent(), batch()
    draws = {"stoch": torch.randn(3, 8, 4), "imagined/stoch": torch.randn(5, 24, 4)}
    rand = Rand(draws={**draws, "imagined/action_noise": torch.randn(5, 24, 2)})
    world = learner.world_model
    posterior = world.observe_sequence(data, rand=rand)
    imagined = learner.imagine(posterior, data.is_terminal, rand.under("imagined/"))
    actor, seen, _ = learner.actor_loss(imagined)
    losses = {"actor": actor, "critic": learner.critic_loss(seen.detach())[0]}
    losses["model"] = world.loss(data, rand=rand).loss
    expected = {}
    for name, loss in losses.items():
        params = learner.optimizers[name].param_groups[0]["params"]
        expected[name] = torch.autograd.grad(loss, params, retain_graph=True)
    found = learner.update(data, rand=rand).metrics
    for name, loss in losses.items():
        torch.testing.assert_close(found[f"loss/{name}"], loss.detach())
        params = learner.optimizers[name].param_groups[0]["params"]
        for param, gradient in zip(params, expected[name], strict=True):
            torch.testing.assert_close(param.grad, gradient, rtol=1e-4, atol=1e-6)


def test_dreams_begin_at_the_states_that_the_model_learns_from() -> None:
    """The same sample, whatever generator draws it; the sequence is observed once."""
    learner = agent()
    observed: list[Tensor] = []
    begun: list[Tensor] = []
    observe, imagine = learner.world_model.observe_sequence, learner.imagine

    def noted(*args: Any, **options: Any) -> Any:
        observed.append((found := observe(*args, **options))["stoch"].detach())
        return found

    def dreamed(start: Any, *args: Any) -> Any:
        begun.append(start["stoch"])
        return imagine(start, *args)

    learner.world_model.observe_sequence = noted  # type: ignore[method-assign]
    learner.imagine = dreamed  # type: ignore[method-assign]
    learner.update(batch())
    (seen,), (start,) = observed, begun
    assert torch.equal(seen, start)


def test_nothing_is_learned_from_imagining_beyond_the_end() -> None:
    """A sequence that starts at a terminal step has no weight."""
    learner, data = agent(), batch()
    posterior = learner.world_model.observe_sequence(data, rand=Rand.seeded(0))
    ended = torch.ones_like(data.is_terminal)
    actor, seen, _ = learner.actor_loss(learner.imagine(posterior, ended, Rand.seeded(0)))
    assert actor.item() == 0
    assert learner.critic_loss(seen)[0].item() == 0


def test_the_checkpoint_has_actor_critic_and_counters() -> None:
    names = {name.split(".")[0] for name in agent().state_dict()}
    assert names == {"world_model", "actor", "critic", "updates"}


def test_exploration_falls_with_the_updates() -> None:
    learner = agent(CHOICE, **{"agent.explore": 0.4, "agent.explore_min": 0.1,
                               "agent.explore_updates": 10})  # fmt: skip
    assert learner.exploration() == pytest.approx(0.4)
    learner.updates += 5
    assert learner.exploration() == pytest.approx(0.25)
    learner.updates += 50
    assert learner.exploration() == pytest.approx(0.1)


def test_training_explores_and_evaluation_does_not() -> None:
    learner = agent()
    obs, first = {"state": torch.randn(200, 5)}, torch.ones(200, dtype=torch.bool)
    draws = {"stoch": torch.zeros(200, 4), "action_noise": torch.randn(200, 2)}
    quiet = Rand(draws={**draws, "explore": torch.zeros(200, 2)})
    calm = learner.act(obs, None, first, "train", rand=quiet)[0].tensor
    loud = Rand(torch.Generator().manual_seed(0), draws)
    wild = learner.act(obs, None, first, "train", rand=loud)[0].tensor
    assert calm is not None
    assert wild is not None
    inside = (wild.abs() < 1) & (calm.abs() < 0.99)
    assert 0.1 < (wild - calm)[inside].std() < 0.3

"""What TD-MPC2 must and must not do: the mistakes that implementations of it are known for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.interfaces import DynamicsModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch
from worldflux_tdmpc2 import learning
from worldflux_tdmpc2.agent import TDMPC2Agent
from worldflux_tdmpc2.config import PRESETS, Task, TDMPC2Config
from worldflux_tdmpc2.distribution import two_hot
from worldflux_tdmpc2.scale import RunningScale, value_range
from worldflux_tdmpc2.world_model import TDMPC2WorldModel

SMALL: dict[str, Any] = {
    "model.latent_dim": 16,
    "model.enc_dim": 12,
    "model.mlp_dim": 12,
    "agent.planner": {"candidates": 12, "elites": 4, "proposals": 3, "iterations": 2},
}
VECTOR = {"state": TensorSpec((5,))}
ACTION = {"action": TensorSpec((2,), low=-1.0, high=1.0)}
PAPER = {
    "1m": 1_214_651,
    "5m": 4_960_618,
    "19m": 18_062_442,
    "48m": 47_208_298,
    "317m": 312_595_417,
}


def small_config(**overrides: Any) -> TDMPC2Config:
    return PRESETS["5m"].with_(**{**SMALL, **overrides})


def small_agent(action_dim: int = 2, **overrides: Any) -> TDMPC2Agent:
    """An agent whose zero-initialised heads say something."""
    action = {"action": TensorSpec((action_dim,), low=-1.0, high=1.0)}
    config = small_config(**overrides)
    obs = VECTOR
    if config.model.tasks:
        obs = {**VECTOR, "task": TensorSpec((), "int64", n=len(config.model.tasks))}
    agent = TDMPC2Agent(config, obs, action)
    with torch.no_grad():
        for parameter in agent.world_model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return agent


def sequences(agent: TDMPC2Agent, rows: int = 4, length: int = 4) -> Batch:
    return random_batch(agent.obs_spec, agent.action_spec, rows, length, boundary=False)


def seeded(**draws: Tensor) -> Rand:
    """Seeded randomness, of which `draws` are forced."""
    return Rand(torch.Generator().manual_seed(0), draws)


def unrolled(agent: TDMPC2Agent, batch: Batch, **draws: Tensor) -> learning.Unrolled:
    return learning.unroll(agent.world_model, batch, seeded(**draws))


def policy_batch(model: TDMPC2WorldModel, found: learning.Unrolled) -> State:
    return learning.policy_batch(model, found.states, found.weight, seeded())


def model_loss(agent: TDMPC2Agent, batch: Batch, **draws: Tensor) -> Tensor:
    return learning.model_loss(agent.world_model, unrolled(agent, batch, **draws))[0]


@pytest.mark.parametrize("preset", PAPER)
def test_parameter_counts_are_those_of_the_paper(preset: str) -> None:
    obs, action = {"state": TensorSpec((24,))}, {"action": TensorSpec((6,))}
    with torch.device("meta"):
        agent = TDMPC2Agent(PRESETS[preset], obs, action)
    assert agent.parameter_count() == agent.world_model.parameter_count() == PAPER[preset]


def test_targets_take_the_lower_of_two_target_heads() -> None:
    agent = small_agent()
    model, batch = agent.world_model, sequences(agent)
    heads = torch.tensor([3, 1])
    td = unrolled(agent, batch, td_heads=heads).td_target
    with torch.no_grad():
        for name, parameter in model.target_q.named_parameters():
            parameter[[0, 2, 4]] = torch.nan  # the heads that were not chosen
            assert name
        model.q.layers[0].weight.mul_(2)  # nor the online network
    torch.testing.assert_close(unrolled(agent, batch, td_heads=heads).td_target, td)
    one, other = (
        unrolled(agent, batch, td_heads=torch.tensor([i, i])).td_target for i in heads.tolist()
    )
    torch.testing.assert_close(td, torch.minimum(one, other))
    assert not torch.allclose(one, other)


def test_planning_and_the_policy_loss_compute_only_the_chosen_heads() -> None:
    agent = small_agent()
    model, batch, heads = agent.world_model, sequences(agent), torch.tensor([0, 2])
    with torch.no_grad():
        for parameter in model.q.parameters():
            parameter[[1, 3, 4]] = torch.nan
    state = model.encode({"state": torch.randn(2, 5)})
    plans, rand = torch.rand(2, 7, 3, 2) * 2 - 1, seeded(heads=heads)
    assert model.score(state, plans, rand=rand).isfinite().all()
    imagined = policy_batch(model, unrolled(agent, batch))
    assert learning.imagine_policy(model, imagined, heads).value.isfinite().all()
    other = torch.tensor([0, 1])
    assert not learning.imagine_policy(model, imagined, other).value.isfinite().any()


def test_dropout_acts_on_the_trained_values_alone() -> None:
    agent = small_agent(**{"model.dropout": 0.5})
    model, batch = agent.world_model.train(), sequences(agent)
    keep = [
        learning.dropout_mask(model, "q_keep", (4, 3, model.q.members), Rand.seeded(seed))
        for seed in (1, 2)
    ]
    assert keep[0] is not None and keep[0].shape == (4, 3, 5, 12)
    assert set(keep[0].unique().tolist()) == {0.0, 2.0}
    first, second = (unrolled(agent, batch, q_keep=mask) for mask in keep)
    torch.testing.assert_close(first.td_target, second.td_target, rtol=0, atol=0)
    assert not torch.allclose(first.terms["value"], second.terms["value"])
    torch.testing.assert_close(first.terms["reward"], second.terms["reward"], rtol=0, atol=0)
    state, plans = model.encode({"state": torch.randn(1, 5)}), torch.zeros(1, 2, 3, 2)
    scores = [model.score(state, plans, rand=Rand.seeded(0)) for _ in range(2)]
    assert torch.equal(*scores)


def test_targets_are_float32_under_autocast() -> None:
    """Rewards and values near 300 enter a target unrounded: bfloat16 has steps of 2 there."""
    agent = small_agent()
    model, batch = agent.world_model, sequences(agent)
    with torch.no_grad():  # every target head says 300
        last = model.target_q.layers[-1]
        last.weight.zero_()
        last.bias.copy_(torch.log(two_hot(torch.tensor(300.0), model.bins) + 1e-12))
    batch.reward[:, 1:] = 300.25
    with torch.autocast("cpu", torch.bfloat16):
        td = unrolled(agent, batch).td_target
    assert td.dtype == torch.float32
    exact = batch.reward[:, 1:] + model.discounts[0] * 300.0
    torch.testing.assert_close(td, exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_time_limit_is_not_a_termination(terminal: bool) -> None:
    agent = small_agent()
    batch = sequences(agent)
    batch.is_last[:, -1] = True
    batch.is_terminal[:, -1] = terminal
    td = unrolled(agent, batch).td_target
    ends_there = torch.isclose(td, batch.reward[:, 1:])
    assert bool(ends_there[:, -1].all()) == terminal
    assert not ends_there[:, :-1].any()


def test_actions_lead_to_the_next_steps_reward_and_observation() -> None:
    agent = small_agent()
    model, batch = agent.world_model, sequences(agent)
    found = unrolled(agent, batch)
    other = replace(batch, reward=batch.reward.clone())
    other.reward[:, 2] += 3.0
    changed = unrolled(agent, other).terms["reward"] != found.terms["reward"]
    assert changed[:, 1].all() and not changed[:, [0, 2]].any()
    states = [model.encode({"state": batch.obs["state"][:, 0]})]
    for t in range(3):
        states.append(model.transition(states[-1], batch.action[:, t]))
        reached = model.encode({"state": batch.obs["state"][:, t + 1]})["latent"]
        error = (states[-1]["latent"] - reached).square().mean(-1)
        torch.testing.assert_close(found.terms["consistency"][:, t], error)


def test_the_last_action_of_a_sequence_means_nothing() -> None:
    agent = small_agent()
    batch = sequences(agent)
    other = replace(batch, action=batch.action.clone())
    other.action[:, -1] = 0.7
    assert torch.equal(model_loss(agent, batch), model_loss(agent, other))


def test_nothing_is_learned_across_an_episode_boundary() -> None:
    agent = small_agent()
    batch = sequences(agent, rows=1, length=5)
    batch.is_last[:, 2] = batch.is_terminal[:, 2] = True
    batch.is_first[:, 3], batch.reward[:, 3] = True, 0.0
    other = replace(batch, obs={"state": batch.obs["state"].clone()}, reward=batch.reward.clone())
    other.obs["state"][:, 3:] += 1.0
    other.reward[:, 4] += 1.0
    assert torch.equal(model_loss(agent, batch), model_loss(agent, other))
    losses = [agent.world_model.loss(b, rand=Rand.seeded(0)).loss for b in (batch, other)]
    torch.testing.assert_close(losses[0], losses[1])


def test_gradients_of_model_and_policy_do_not_meet() -> None:
    agent = small_agent(**{"model.episodic": True})
    model, batch = agent.world_model, sequences(agent)
    found = unrolled(agent, batch)
    learning.model_loss(model, found)[0].backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    rest = {name for name, p in model.named_parameters() if p.requires_grad} - trained
    assert rest == {f"policy.{name}" for name, _ in model.policy.named_parameters()}
    model.zero_grad(set_to_none=True)
    imagined = policy_batch(model, found)
    proposed = learning.imagine_policy(model, imagined, torch.tensor([0, 1]))
    learning.policy_loss(model, imagined, proposed).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == rest


def test_it_says_whether_it_ignores_terminations() -> None:
    assert "Set model.episodic=true" in small_agent().ignores_terminations
    assert not small_agent(**{"model.episodic": True}).ignores_terminations


def test_the_value_scale_moves_once_an_update_and_not_in_the_loss() -> None:
    agent = small_agent()
    model, scale, tau = agent.world_model, agent.world_model.scale, agent.config.model.tau
    imagined, heads = policy_batch(model, unrolled(agent, sequences(agent))), torch.tensor([0, 1])
    losses = [agent._policy_loss(imagined, heads)[0] for _ in range(2)]
    assert float(scale.value) == 1.0 and torch.equal(*losses)

    seen: list[Tensor] = []
    plain, scale.update = scale.update, seen.append  # type: ignore[method-assign]
    agent.update(sequences(agent), "online", rand=Rand.seeded(0))
    (values,) = seen
    assert values.shape == (4,)
    plain(values)
    expected = torch.lerp(torch.ones(()), value_range(values, torch.tensor([0.05, 0.95])), tau)
    torch.testing.assert_close(scale.value, expected)


def test_the_value_scale_stays_on_its_device() -> None:
    """Nothing is made on another device in an update; what is constant is in no checkpoint."""
    scale = RunningScale(0.01).to("meta")
    with torch.device("cpu"):
        scale.update(torch.zeros(8, device="meta"))
    assert set(scale.state_dict()) == {"value"}


def test_parts_of_a_batch_see_the_noise_of_the_whole() -> None:
    """Dropout, heads and policy noise are drawn for all rows, so that parts can be accumulated."""
    agent = small_agent(**{"model.episodic": True, "model.dropout": 0.5})
    batch, heads = sequences(agent), torch.tensor([0, 1])
    halves = [slice(0, 2), slice(2, 4)]

    def cut(half: slice) -> Batch:
        return batch.map(lambda tensor: tensor[half])

    whole, outputs = agent._model_loss(batch, Rand.seeded(0))
    parts = zip(halves, Rand.seeded(0).parts(2), strict=True)
    losses = [agent._model_loss(cut(half), rand)[0] for half, rand in parts]
    torch.testing.assert_close(torch.stack(losses).mean(), whole)
    alone = agent._model_loss(cut(halves[0]), Rand.seeded(0))[0]  # its own noise, not the whole's
    assert not torch.allclose(losses[0], alone)

    imagined = learning.policy_batch(
        agent.world_model, outputs["states"], outputs["weight"], Rand.seeded(1)
    )
    losses = [agent._policy_loss(imagined.rows(half), heads)[0] for half in halves]
    torch.testing.assert_close(torch.stack(losses).mean(), agent._policy_loss(imagined, heads)[0])


def test_encoded_targets_take_no_gradient() -> None:
    agent = small_agent()
    batch = sequences(agent)
    batch.obs["state"].requires_grad_()
    model_loss(agent, batch).backward()
    gradient = batch.obs["state"].grad
    assert gradient is not None
    assert gradient[:, 0].abs().sum() > 0 and gradient[:, 1:].abs().sum() == 0


def test_time_weights_fall_with_rho() -> None:
    for rho, expected in ((1.0, [1.0, 1.0, 1.0]), (0.5, [1.0, 0.5, 0.25])):
        agent = small_agent(**{"model.rho": rho, "model.episodic": True})
        found = unrolled(agent, sequences(agent))
        parts = learning.model_loss(agent.world_model, found)[1]
        means = found.terms["reward"].mean(0)
        torch.testing.assert_close(parts["reward"], (means * torch.tensor(expected)).mean())
        torch.testing.assert_close(parts["termination"], found.terms["termination"].mean())


def test_two_models_share_nothing() -> None:
    first, second = small_agent(), small_agent()
    ours = {p.data_ptr() for p in first.parameters()}
    assert not ours & {p.data_ptr() for p in second.parameters()}


def test_the_encoder_learns_more_slowly_and_the_policy_on_its_own() -> None:
    agent = small_agent()
    groups = agent.optimizers["model"].param_groups
    assert [group["lr"] for group in groups] == pytest.approx([9e-5, 3e-4])
    counted = sum(p.numel() for group in groups for p in group["params"])
    policy = sum(p.numel() for p in agent.world_model.policy.parameters())
    assert counted + policy == agent.parameter_count()
    assert agent.optimizers["policy"].defaults["eps"] == 1e-5


def test_training_plan_is_that_of_the_paper() -> None:
    plan = small_agent().training_plan()
    assert plan.prefill == 2500
    online = plan.phase("online")
    assert (online.updates, online.batch, online.length) == (2500, 256, 4)
    assert (online.start, online.updates_per_step, online.boundary) == (2500, 1.0, "within")
    assert small_agent(**{"model.episode_length": 100}).training_plan().prefill == 1000
    [online] = small_agent(**{"agent.seed_steps": 0}).training_plan().phases
    assert (online.start, online.updates) == (0, None)


def test_an_unknown_phase_and_a_sequence_without_transitions_are_errors() -> None:
    agent = small_agent()
    with pytest.raises(ContractError, match="no phase 'offline'. Phases: online"):
        agent.update(sequences(agent), "offline")
    with pytest.raises(ContractError, match="learns from transitions: a sequence of 1 step"):
        agent.update(sequences(agent, length=1), "online")


def test_tasks_have_their_own_discount_mask_and_embedding() -> None:
    tasks = (Task(name="short", action_dim=1, episode_length=100), Task(name="long", action_dim=3))
    agent = small_agent(3, **{"model.tasks": tasks, "model.task_dim": 4})
    model = agent.world_model
    obs = {"state": torch.randn(1, 5).repeat(2, 1), "task": torch.tensor([0, 1])}
    state = model.encode(obs)
    torch.testing.assert_close(model.discount(state), torch.tensor([0.95, 0.99]))
    assert not torch.allclose(state["latent"][0], state["latent"][1])
    sample = model.act_on(state, torch.ones(2, 3))
    assert sample.action[0, 1:].abs().sum() == 0 and (sample.action[1] != 0).all()
    payload, _ = agent.act(obs, None, torch.ones(2, dtype=torch.bool), "train")
    assert payload.tensor is not None
    assert payload.tensor[0, 1:].abs().sum() == 0 and (payload.tensor[1] != 0).all()
    for _ in range(2):
        agent.update(sequences(agent), "online")
    embedding = model.observation_encoder.embedding
    assert embedding.weight.norm(dim=-1).max() <= 1 + 1e-5


def test_a_plan_earns_nothing_after_it_terminates() -> None:
    agent = small_agent(**{"model.episodic": True})
    model = agent.world_model
    state, plans = model.encode({"state": torch.randn(1, 5)}), torch.rand(1, 4, 3, 2) * 2 - 1
    with torch.no_grad():
        model.decoder_module.termination[-1].bias.fill_(100.0)
    many = State({key: value.expand(4, -1) for key, value in state.tensors.items()})
    first = model.decode(model.transition(many, plans[0, :, 0])).predictions["reward"]
    torch.testing.assert_close(model.score(state, plans, rand=Rand.seeded(0))[0], first)
    with torch.no_grad():
        model.decoder_module.termination[-1].bias.fill_(-100.0)
    assert not torch.allclose(model.score(state, plans, rand=Rand.seeded(0))[0], first)


@pytest.mark.parametrize("episodic", [False, True])
def test_the_shared_first_step_of_plans_scores_as_separate_ones(episodic: bool) -> None:
    tasks = (Task(name="a", action_dim=2), Task(name="b", action_dim=2, episode_length=100))
    agent = small_agent(**{"model.episodic": episodic, "model.tasks": tasks, "model.task_dim": 4})
    model = agent.world_model
    state = model.encode({"state": torch.randn(2, 5), "task": torch.tensor([0, 1])})
    plans = torch.rand(2, 6, 3, 2) * 2 - 1
    shared = model.score(state, plans, rand=Rand.seeded(0))
    model.dynamics_model = _Wrapped(model.dynamics_model)
    torch.testing.assert_close(model.score(state, plans, rand=Rand.seeded(0)), shared)
    model.dynamics_model = _Wrapped(model.dynamics_model, shift=0.1)
    assert not torch.allclose(model.score(state, plans, rand=Rand.seeded(0)), shared)


class _Wrapped(DynamicsModel):
    """Another dynamics module, as a user would put in."""

    def __init__(self, inner: Any, shift: float = 0.0) -> None:
        super().__init__()
        self.inner, self.shift = inner, shift

    def transition(self, state: State, action: Tensor, **options: Any) -> State:
        after = self.inner.transition(state, action, **options)
        return State({**after.tensors, "latent": after["latent"] + self.shift})


def test_environments_are_planned_for_together_and_apart_alike() -> None:
    agent = small_agent()
    obs, first = {"state": torch.randn(3, 5)}, torch.ones(3, dtype=torch.bool)
    draws = {  # 2 iterations, 3 environments, 3 proposals of 12 candidates, 4 elites, horizon 3
        "noise": torch.randn(2, 3, 9, 3, 2),
        "choice": torch.empty(3, 4).exponential_(),
        "propose/eps": torch.randn(3, 3, 3, 2),
        "score/eps": torch.randn(2, 3, 12, 2),
        "score/heads": torch.tensor([[0, 4], [2, 1]]),
        "explore": torch.randn(3, 2),
    }
    rand = Rand(draws=draws)
    together, _ = agent.act(obs, None, first, "train", rand=rand)
    rand.check_used()
    batch_axis = {"noise": 1, "score/eps": 1, "score/heads": None}
    for row in range(3):
        one = {
            name: value
            if batch_axis.get(name, 0) is None
            else value.narrow(batch_axis.get(name, 0), row, 1)  # type: ignore[arg-type]
            for name, value in draws.items()
        }
        alone, _ = agent.act(
            {"state": obs["state"][row : row + 1]}, None, first[:1], "train", rand=Rand(draws=one)
        )
        torch.testing.assert_close(alone.tensor[0], together.tensor[row])  # type: ignore[index]


def test_wide_actions_are_planned_longer_and_the_policy_can_act_alone() -> None:
    assert small_agent(19).planner.config.iterations == 2
    assert small_agent(20).planner.config.iterations == 4
    agent = small_agent(**{"agent.plan": False})
    obs, first = {"state": torch.randn(2, 5)}, torch.ones(2, dtype=torch.bool)
    action = agent.act(obs, None, first, "eval")[0].tensor
    torch.testing.assert_close(action, agent.world_model.act_on(agent.world_model.encode(obs)).mean)
    explored = agent.act(obs, None, first, "train", rand=seeded(eps=torch.ones(2, 2)))[0].tensor
    assert explored is not None and not torch.allclose(action, explored)


def test_bfloat16_losses_are_near_those_of_float32() -> None:
    """Every product in bfloat16 by autocast; sums, norms and distributions stay float32."""
    agent = small_agent(**{"model.episodic": True, "model.dropout": 0.0})
    batch, model = sequences(agent, rows=64), agent.world_model
    heads, losses = torch.tensor([0, 1]), []
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found = learning.unroll(model, batch, seeded())
            parts = learning.model_loss(model, found)[1]
            imagined = policy_batch(model, found)
            proposed = learning.imagine_policy(model, imagined, heads)
            parts["policy"] = learning.policy_loss(model, imagined, proposed)
            losses.append({name: part.detach() for name, part in parts.items()})
        assert all(part.dtype == torch.float32 for part in parts.values())
    for name, exact in losses[0].items():
        near = pytest.approx(float(exact), rel=2e-2, abs=1e-3)
        assert float(losses[1][name]) == near, name
        assert float(losses[1][name]) != float(exact), name


def test_the_episode_length_is_the_environments_where_none_is_given() -> None:
    """Discounts and random steps of the paper: limits of 200, 500 and 1,000 steps."""
    for limit, discount, seed in ((200, 0.975, 1000), (500, 0.99, 2500), (1000, 0.995, 5000)):
        config = TDMPC2Config().completed({}, limit)
        assert config.model.episode_length == limit
        assert config.model.discount(*config.model.lengths) == pytest.approx(discount)
        assert max(1000, 5 * max(config.model.lengths)) == seed
    assert TDMPC2Config().completed({}).model.lengths == (500,)
    given = TDMPC2Config().with_(**{"model.episode_length": 70})
    assert given.completed({}, 200) is given

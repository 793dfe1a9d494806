"""Scoring through a model, and what a model must bring to be planned in."""

from __future__ import annotations

import pytest
import torch

from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ContractError
from worldflux.planning import create_planner, default_score, score
from worldflux.planning.config import ScoreConfig
from worldflux.planning.score import discounted_return


def start(model, rows=3):
    return model.encode({"state": torch.randn(rows, 2)})


def test_discounted_return_weighs_by_the_chance_of_getting_there():
    reward, go_on, value = torch.randn(4, 5), torch.rand(4, 5), torch.randn(5)
    for m in range(5):
        weight, total = 1.0, 0.0
        for h in range(4):
            total += weight * float(reward[h, m])
            weight *= 0.9 * float(go_on[h, m])
        total += weight * float(value[m])
        found = discounted_return(reward, 0.9, go_on, value)[m]
        assert float(found) == pytest.approx(total, abs=1e-5)


def test_default_score_is_the_return_of_a_simulation(integrator):
    model = integrator()
    state, actions = start(model), torch.rand(3, 7, 4, 1) * 2 - 1
    score = default_score(model, state, actions)
    for n in range(7):
        expected = model.exact_return(state["x"], actions[:, n].transpose(0, 1))
        torch.testing.assert_close(score[:, n], expected)


def test_terminal_value_and_discount_are_added(integrator):
    model = integrator()
    state, actions = start(model), torch.zeros(3, 2, 4, 1)
    plain = default_score(model, state, actions, config=ScoreConfig(discount=0.5))
    config = ScoreConfig(discount=0.5, terminal_value=True)
    end = state
    for _ in range(4):
        end = model.transition(end, torch.zeros(3, 1), deterministic=True)
    value = model.decode(end).predictions["value"]
    found = default_score(model, state, actions, config=config)
    torch.testing.assert_close(found, plain + 0.5**4 * value[:, None])


def test_sampled_imagination_uses_forced_draws_or_the_generator(integrator):
    model = integrator()
    state, actions = start(model), torch.zeros(3, 2, 4, 1)
    config = ScoreConfig(deterministic=False)
    calm = default_score(model, state, actions)
    silent = Rand(draws={"push": torch.zeros(4, 6, 2)})
    torch.testing.assert_close(
        default_score(model, state, actions, rand=silent, config=config), calm
    )
    silent.check_used()
    seeded = [
        default_score(model, state, actions, rand=Rand.seeded(seed), config=config)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(seeded[0], seeded[1]) and not torch.equal(seeded[0], seeded[2])


@pytest.mark.parametrize("distance", ["squared", "l1"])
@pytest.mark.parametrize("over", ["last", "all"])
def test_goal_score_is_the_negative_distance(integrator, distance, over):
    model = integrator()
    state, goal = start(model), torch.randn(3, 2)
    actions = torch.rand(3, 5, 4, 1)
    config = ScoreConfig(goal_key="x", distance=distance, over=over)
    score = default_score(model, state, actions, ConditionPayload(goal=goal), config=config)
    for b in range(3):
        for n in range(5):
            x, total = State({key: v[b : b + 1] for key, v in state.tensors.items()}), 0.0
            for h in range(4):
                x = model.transition(x, actions[b, n, h : h + 1], deterministic=True)
                apart = x["x"][0] - goal[b]
                now = float((apart**2).sum() if distance == "squared" else apart.abs().mean())
                total = total + now if over == "all" else now
            assert float(score[b, n]) == pytest.approx(-total, abs=1e-4)


def test_planning_towards_a_goal_gets_there(integrator):
    model = integrator()
    state = model.encode({"state": torch.zeros(2, 2)})
    goal = torch.tensor([[1.0, 0.5], [-0.5, 0.0]])
    config = {"horizon": 6, "score": {"goal_key": "x"}}
    planner = create_planner("cem", model.action_spec, config)
    plan = planner(model, state, conditions=ConditionPayload(goal=goal))
    for action in plan.tensor:
        state = model.transition(state, action, deterministic=True)
    torch.testing.assert_close(state["x"], goal, atol=0.03, rtol=0)


def test_a_condition_without_a_value_for_every_row_is_refused(integrator):
    model = integrator()
    state, actions = start(model), torch.zeros(3, 5, 2, 1)
    one_goal = ConditionPayload(goal=torch.zeros(1, 2))
    with pytest.raises(ContractError, match="'goal' has 1 rows, expected 3"):
        default_score(model, state, actions, one_goal, ScoreConfig(goal_key="x"))


def test_goal_errors_say_what_to_set(integrator):
    model = integrator()
    state, actions = start(model), torch.zeros(3, 1, 2, 1)
    goal = ConditionPayload(goal=torch.zeros(3, 2))
    with pytest.raises(ContractError, match=r"several tensors \(x, effort\): set score.goal_key"):
        default_score(model, state, actions, goal)
    with pytest.raises(ContractError, match=r"no tensor 'efort' .* Did you mean 'effort'"):
        default_score(model, state, actions, goal, config=ScoreConfig(goal_key="efort"))
    with pytest.raises(ContractError, match=r"goal has shape \(2,\) per row, .*'effort' has \(\)"):
        default_score(model, state, actions, goal, config=ScoreConfig(goal_key="effort"))


def test_a_state_of_one_tensor_needs_no_goal_key(shortest_path):
    model = shortest_path()
    state = model.encode({"state": torch.tensor([3])})
    goal = ConditionPayload(goal=model.encode({"state": torch.tensor([15])})["cell"])
    planner = create_planner("cem", model.action_spec, {"horizon": 3, "select": "best"})
    assert planner(model, state, conditions=goal).tensor[:, 0].tolist() == [2, 2, 2]


def test_models_that_cannot_be_scored_are_refused(integrator):
    class NoReward(torch.nn.Module):
        def forward(self, state, keys=None):
            return {}

    model = integrator()
    planner = create_planner("cem", model.action_spec, {"score": {"terminal_value": True}})
    model.decoder_module = NoReward()
    with pytest.raises(CapabilityError, match="DoubleIntegrator predicts no reward"):
        planner(model, start(model))

    class OnlyReward(torch.nn.Module):
        def forward(self, state, keys=None):
            return {"reward": state["effort"]}

    model.decoder_module = OnlyReward()
    with pytest.raises(CapabilityError, match="terminal_value=True, but DoubleIntegrator predicts"):
        planner(model, start(model))
    model.capabilities = frozenset()
    with pytest.raises(CapabilityError, match="does not support planning"):
        planner(model, start(model))


def test_what_a_model_hands_a_planner_is_checked(integrator):
    class Wrong(integrator):
        def score(self, state, actions, conditions=None, *, rand=None):
            return actions.sum((1, 2, 3))

        def propose(self, state, n, horizon, conditions=None, *, rand=None):
            return torch.zeros(n, horizon, 1)

    model = Wrong()
    small = {"candidates": 8, "elites": 2, "horizon": 4}
    planner = create_planner("cem", model.action_spec, small)
    with pytest.raises(ContractError, match=r"score returned shape \(3,\) for 3 .* and 8"):
        planner(model, start(model))
    guided = create_planner("cem", model.action_spec, {**small, "proposals": 2})
    with pytest.raises(ContractError, match=r"propose returned shape \(2, 4, 1\), .* \(3, 2, 4, 1"):
        guided(model, start(model))
    with pytest.raises(CapabilityError, match="proposals=2, but DoubleIntegrator has no `propose"):
        guided(integrator(), start(model))


@pytest.mark.parametrize("rows", [1, 12, 1000])
def test_states_decoded_in_parts_score_as_all_at_once(integrator, monkeypatch, rows):
    model = integrator()
    state, actions = start(model), torch.randn(3, 4, 7, 1)
    config = ScoreConfig(discount=0.9)
    whole = default_score(model, state, actions, config=config)
    monkeypatch.setattr(score, "DECODED_ROWS", rows)
    torch.testing.assert_close(default_score(model, state, actions, config=config), whole)
    alone = default_score(model, state, actions[:, 2:3], config=config)
    torch.testing.assert_close(alone, whole[:, 2:3])


def test_draws_and_memory_are_checked(integrator):
    model = integrator()
    state = start(model)
    planner = create_planner("cem", model.action_spec)
    misspelt = Rand(draws={"nose": torch.zeros(1)})
    planner(model, state, rand=misspelt)
    with pytest.raises(ContractError, match="Nothing asked for the draw 'nose'"):
        misspelt.check_used()
    noise = torch.zeros(10, 2, 1000, 12, 1)
    with pytest.raises(ContractError, match=r"'noise' has shape \(2, .*, expected \(3, "):
        planner(model, state, rand=Rand(draws={"noise": noise}))
    memory = create_planner("icem", model.action_spec).initial_memory(3)
    with pytest.raises(ContractError, match="CEM cannot start from this memory: expected"):
        planner(model, state, previous=memory)


def test_gradient_planner_refuses_a_score_without_gradient(integrator):
    class Blind(integrator):
        def score(self, state, actions, conditions=None, *, rand=None):
            return actions.detach().sum((2, 3))

    model = Blind()
    planner = create_planner("gradient", model.action_spec)
    with pytest.raises(CapabilityError, match="Blind scores actions without a gradient"):
        planner(model, start(model))


def test_gradient_planning_leaves_no_gradient_in_the_model(integrator):
    class Learned(integrator):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(()))

        def plan_step(self, state, action, *rest, **named):
            return super().plan_step(state, action * self.gain, *rest, **named)

    model = Learned()
    plan = create_planner("gradient", model.action_spec)(model, start(model))
    assert model.gain.grad is None and not plan.tensor.requires_grad
    assert not plan.extras["wf.planner.memory"]["mean"].requires_grad

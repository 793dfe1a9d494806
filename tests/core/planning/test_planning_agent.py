"""A planner over a model is an agent: it observes, executes plans, starts anew, and learns."""

from __future__ import annotations

import pytest
import torch

from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux.planning import PlanningAgent
from worldflux.planning.config import CEMConfig, PlanningAgentConfig
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import check_agent
from worldflux.testing.dummies import TinyConfig, TinyModel

SMALL = {"horizon": 5, "candidates": 64, "elites": 8, "iterations": 4}


def agent_of(model, kind="cem", **changes):
    small = SMALL if kind in ("cem", "icem", "mppi") else {}
    planner = {"kind": kind, **small, **changes}
    return PlanningAgent(model, PlanningAgentConfig(planner=planner, batch=4, length=8))


@pytest.fixture
def known(integrator):
    """The double integrator as a model that needs no memory: its observation is its state."""

    class Known(integrator):
        capabilities = integrator.capabilities | {Capability.STATELESS}

    return Known()


def drive(agent, model, x, steps, mode="eval", first_at=0):
    """Act in the model's own world for some steps: states and actions along the way."""
    rand, state, seen, taken = Rand.seeded(0), None, [x], []
    for t in range(steps):
        is_first = torch.full((len(x),), t == first_at)
        payload, state = agent.act({"state": x}, state, is_first, mode, rand=rand)
        moved = model.transition(model.encode({"state": x}), payload.tensor, deterministic=True)
        x = moved["x"]
        seen.append(x)
        taken.append(payload.tensor)
    return seen, taken


@pytest.mark.parametrize("execute", [1, 3])
def test_it_brings_the_mass_to_rest(known, execute):
    agent = agent_of(known, "icem", candidates=128, horizon=10, execute=execute)
    start = torch.tensor([[1.0, 0.0], [-1.5, 0.5]])
    seen, taken = drive(agent, known, start, 20)
    assert seen[-1].abs().max() < 0.25, seen[-1]
    assert torch.stack(taken).abs().max() <= 1


def test_random_actions_do_not_bring_the_mass_to_rest(known):
    agent = agent_of(known, "random_shooting", candidates=1, horizon=5)
    seen, _ = drive(agent, known, torch.tensor([[1.0, 0.0], [-1.5, 0.5]]), 20)
    assert seen[-1].abs().max() > 0.25


def test_between_plans_it_executes_the_plan_it_made(known):
    agent = agent_of(known, execute=3)
    x, rand, first = torch.randn(2, 2), Rand.seeded(0), torch.ones(2, dtype=torch.bool)
    going_on = ~first
    payload, state = agent.act({"state": x}, None, first, rand=rand)
    plan = state["planner.plan"]
    for t in range(3):
        assert torch.equal(payload.tensor, plan[:, t])
        assert torch.equal(state["planner.plan"], plan)
        payload, state = agent.act({"state": x}, state, going_on, rand=rand)
    assert not torch.equal(state["planner.plan"], plan)
    assert state["planner.step"].tolist() == [1, 1]


def test_a_row_that_starts_anew_plans_at_once_and_the_other_goes_on(known):
    agent = agent_of(known, execute=3)
    x, rand, first = torch.randn(2, 2), Rand.seeded(0), torch.ones(2, dtype=torch.bool)
    _, state = agent.act({"state": x}, None, first, rand=rand)
    plan = state["planner.plan"]
    first = torch.tensor([False, True])
    payload, state = agent.act({"state": x}, state, first, rand=rand)
    assert torch.equal(state["planner.plan"][0], plan[0])
    assert torch.equal(payload.tensor[0], plan[0, 1])
    assert not torch.equal(state["planner.plan"][1], plan[1])
    assert state["planner.step"].tolist() == [2, 1]


def test_training_explores_and_evaluation_does_not(known, draws_of):
    agent = agent_of(known, exploration=0.5)
    x, first = torch.randn(2, 2), torch.ones(2, dtype=torch.bool)
    draws = draws_of(agent.planner, 2, explore=True)
    calm, bold = (
        agent.act({"state": x}, None, first, mode, rand=Rand(draws=draws))[0].tensor
        for mode in ("eval", "train")
    )
    torch.testing.assert_close(bold, (calm + 0.5 * draws["explore"]).clamp(-1, 1))


def test_it_reaches_the_goal_in_the_observation(known):
    agent = agent_of(known, candidates=256, elites=16, execute=5, score={"goal_key": "x"})
    goal = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    x, state, rand = torch.zeros(2, 2), None, Rand.seeded(0)
    for t in range(5):
        obs = {"state": x, "goal": goal}
        payload, state = agent.act(obs, state, torch.full((2,), t == 0), rand=rand)
        latent = known.encode({"state": x})
        x = known.transition(latent, payload.tensor, deterministic=True)["x"]
    torch.testing.assert_close(x, goal, atol=0.1, rtol=0)


def test_a_goal_that_could_be_any_observation_is_refused(known):
    agent = agent_of(known)
    agent.obs_spec["image"] = TensorSpec((3, 8, 8), "uint8")
    with pytest.raises(ContractError, match="goal could be any of state, image: override Planning"):
        agent.conditions({"state": torch.zeros(1, 2), "goal": torch.zeros(1, 2)})


def test_model_draws_reach_the_model():
    spec = {"state": TensorSpec((3,))}
    model = TinyModel(TinyConfig(), spec, {"action": TensorSpec((2,))})
    agent = agent_of(model)
    obs, first = {"state": torch.randn(2, 3)}, torch.ones(2, dtype=torch.bool)
    states = [
        agent.act(obs, None, first, rand=Rand(draws={"model/stoch": torch.full((2, 16), value)}))[1]
        for value in (0.0, 1.0)
    ]
    torch.testing.assert_close(states[1]["stoch"] - states[0]["stoch"], torch.full((2, 16), 0.1))


@pytest.mark.parametrize("kind", ["random_shooting", "cem", "icem", "mppi", "gradient"])
@pytest.mark.parametrize("action", ["continuous", "discrete", "multi"])
def test_the_published_checks_pass_on_a_model_with_any_planner(kind, action):
    spec = {
        "continuous": TensorSpec((2,)),
        "discrete": TensorSpec((), "int64", n=3),
        "multi": TensorSpec((2,), "int64", n=(3, 2)),
    }[action]
    small = {"horizon": 3, "candidates": 16, "elites": 4, "iterations": 2, "relaxed": True}
    fields = {
        "random_shooting": ("horizon", "candidates"),
        "gradient": ("horizon", "candidates", "iterations", "relaxed"),
    }.get(kind, ("horizon", "candidates", "elites", "iterations"))

    def make():
        model = TinyModel(TinyConfig(), {"state": TensorSpec((3,))}, {"action": spec})
        # imagination is not part of this agent's update, so the slot is not declared
        model.composable_support = model.composable_support - {"rollout_executor"}
        planner = {"kind": kind, **{key: small[key] for key in fields}}
        settings = PlanningAgentConfig(planner=planner, batch=4, length=8, lr=1e-2)
        return PlanningAgent(model, settings)

    assert "check_acting_resets" in check_agent(make)


def test_updates_lower_the_models_loss_whatever_its_loss_takes():
    class Plain(TinyModel):
        def loss(self, batch):
            return super().loss(batch, rand=Rand.seeded(0))

    from worldflux.testing.batches import random_batch

    spec, action = {"state": TensorSpec((3,))}, {"action": TensorSpec((2,))}
    for family in (TinyModel, Plain):
        agent = PlanningAgent(family(TinyConfig(), spec, action), PlanningAgentConfig(lr=1e-2))
        batch = random_batch(spec, action, 4, 8)
        losses = [
            float(agent.update(batch, "model", rand=Rand.seeded(0)).metrics["loss"])
            for _ in range(30)
        ]
        assert losses[-1] < 0.8 * losses[0], losses


def test_the_planner_is_chosen_by_its_kind_and_its_fields_checked():
    settings = PlanningAgentConfig(planner={"kind": "mppi", "horizon": 4})
    assert settings.planner.kind == "mppi" and settings.planner.horizon == 4
    assert PlanningAgentConfig() == PlanningAgentConfig(planner=CEMConfig())
    again = PlanningAgentConfig.from_json(settings.to_json())
    assert again == settings


def test_acting_state_is_plain_tensors_by_row(known):
    agent = agent_of(known)
    _, state = agent.act({"state": torch.randn(3, 2)}, None, torch.ones(3, dtype=torch.bool))
    state.validate()
    assert State.deserialize(state.serialize()).tensors.keys() == state.tensors.keys()


@pytest.mark.parametrize(
    "action", [TensorSpec((2,)), TensorSpec((), "int64", n=3), TensorSpec((2,), "int64", n=(3, 2))]
)
def test_it_is_told_of_the_action_that_was_executed_and_plans_for_none_but_its_own(action):
    spec = {"state": TensorSpec((3,))}
    model = TinyModel(TinyConfig(), spec, {"action": action})
    agent = agent_of(model, execute=3)
    planner, planned = agent.planner, []
    optimize, planner.optimize = planner.optimize, lambda *args: planned.append(args)
    obs, first = {"state": torch.randn(2, 3)}, torch.ones(2, dtype=torch.bool)
    other = planner.space.to_env(planner.space.uniform(torch.randn(2, planner.space.size), None))
    state = agent.took(agent.observe(obs, None, first, rand=Rand.seeded(0)), other)
    assert torch.equal(state["planner.action"], other)
    rand = Rand(draws={"model/stoch": torch.zeros(2, 16)})
    after = agent.observe(obs, state, ~first, rand=rand)
    own = State({key: value for key, value in state.tensors.items() if "planner." not in key})
    wanted = model.observe(own, other, obs, ~first, rand=rand.under("model/"))
    for key, value in wanted.tensors.items():
        assert torch.equal(after[key], value), key
    assert not planned

    planner.optimize = optimize  # and after another's action the plan under way is of no use
    _, acted = agent.act(obs, after, ~first, rand=Rand.seeded(0))
    told = agent.took(acted, other)
    _, again = agent.act(obs, told, ~first, rand=Rand.seeded(0))
    assert again["planner.step"].tolist() == [1, 1]


def test_it_remembers_what_its_model_does(known):
    model = TinyModel(TinyConfig(), {"state": TensorSpec((3,))}, {"action": TensorSpec((2,))})
    assert agent_of(model).remembers
    assert not agent_of(known).remembers

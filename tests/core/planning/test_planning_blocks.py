"""An agent whose model has a stride searches blocks of actions, and executes them one by one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux.core.payloads import ActionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.planning import PlanningAgent, create_planner
from worldflux.planning.config import PlanningAgentConfig
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import check_agent, check_world_model
from worldflux.testing.dummies import TinyConfig, TinyModel

K = 3
OBS = {"state": TensorSpec((4,))}
CONTINUOUS = {"action": TensorSpec((2,), low=-1.0, high=1.0)}
DISCRETE = {"action": TensorSpec((), "int64", n=4)}
SMALL = {"kind": "cem", "horizon": 4, "candidates": 16, "elites": 4, "iterations": 2}


class Blocks(TinyModel):
    """A model with memory whose step spans three of the environment's; it counts what it sees."""

    stride = K

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # imagination is not part of a planning agent's update, so the slot is not declared
        self.composable_support = self.composable_support - {"rollout_executor"}
        self.shown: list[Tensor] = []

    def observe(self, state, action, obs, is_first, *args, **options):
        self.shown.append(action)
        return super().observe(state, action, obs, is_first, *args, **options)


class Strided(PlanningAgent):
    stride = K


def make(action=CONTINUOUS, **planner) -> Strided:
    settings = PlanningAgentConfig(planner={**SMALL, **planner}, batch=4, length=8, lr=1e-2)
    return Strided(Blocks(TinyConfig(), OBS, action), settings)


def drive(agent, steps, state=None, rand=None):
    """`steps` of acting on noise: actions (B, steps, ...) and the State after each."""
    rand, taken, states = rand or Rand.seeded(0), [], []
    for _ in range(steps):
        first = torch.full((2,), state is None)
        payload, state = agent.act({"state": torch.randn(2, 4)}, state, first, rand=rand)
        taken.append(payload.tensor)
        states.append(state)
    return torch.stack(taken, 1), states


@pytest.mark.parametrize("action", [CONTINUOUS, DISCRETE])
@pytest.mark.parametrize("execute", [1, 2])
def test_blocks_of_the_plan_are_executed_action_by_action(action, execute):
    agent = make(action, execute=execute)
    taken, states = drive(agent, 2 * K * execute)
    assert taken.shape == (2, 2 * K * execute, *action["action"].shape)
    plans = [state["planner.plan"] for state in states]
    assert plans[0].shape == (2, 4, *action["action"].block(K).shape)
    span = K * execute
    for begin in (0, span):
        plan = plans[begin]
        assert all(torch.equal(plan, other) for other in plans[begin : begin + span])
        assert torch.equal(taken[:, begin : begin + span], plan[:, :execute].flatten(1, 2))
    assert not torch.equal(plans[0], plans[span])


def test_the_model_is_shown_a_whole_block_after_every_k_steps():
    agent = make()
    taken, states = drive(agent, 2 * K + 1)
    shown = agent.world_model.shown
    assert len(shown) == 2
    for number, block in enumerate(shown):
        assert torch.equal(block, taken[:, number * K : (number + 1) * K])
    latents = [state["deter"] for state in states]
    same = [torch.equal(a, b) for a, b in pairwise(latents)]
    assert same == [True, True, False, True, True, False]


def test_a_row_that_starts_anew_begins_a_block_and_the_other_goes_on():
    agent, rand = make(), Rand.seeded(0)
    _, states = drive(agent, 2, rand=rand)
    obs, first = {"state": torch.randn(2, 4)}, torch.tensor([False, True])
    payload, state = agent.act(obs, states[-1], first, rand=rand)
    assert state["planner.done"].tolist() == [3, 1] and state["planner.step"].tolist() == [1, 1]
    before = states[-1]
    assert torch.equal(payload.tensor[0], before["planner.action"][0, 2])
    assert torch.equal(payload.tensor[1], state["planner.plan"][1, 0, 0])
    for key in ("stoch", "planner.plan", "planner.memory.mean"):
        assert torch.equal(state[key][0], before[key][0]), key
        assert not torch.equal(state[key][1], before[key][1]), key
    payload, state = agent.act(obs, state, torch.tensor([False, False]), rand=rand)
    assert state["planner.done"].tolist() == [1, 2]  # each in a block of its own


def test_random_steps_fill_blocks_without_a_plan_and_the_model_sees_what_was_done():
    agent, rand = make(), Rand.seeded(0)
    planned = []
    optimize = agent.planner.optimize
    agent.planner.optimize = lambda *args: planned.append(args) or optimize(*args)
    given, state, first = torch.rand(2, K + 1, 2), None, torch.ones(2, dtype=torch.bool)
    for t in range(K + 1):
        state = agent.observe({"state": torch.randn(2, 4)}, state, first, rand=rand)
        state = agent.took(state, given[:, t])
        first = torch.zeros(2, dtype=torch.bool)
    assert not planned
    (shown,) = agent.world_model.shown
    assert torch.equal(shown, given[:, :K])

    # one action of the second block is done: the plan made at its beginning completes it
    payload, state = agent.act({"state": torch.randn(2, 4)}, state, first, rand=rand)
    assert len(planned) == 1 and len(agent.world_model.shown) == 1
    block = state["planner.action"]
    assert torch.equal(block[:, 0], given[:, K]) and torch.equal(payload.tensor, block[:, 1])
    assert torch.equal(block[:, 1:], state["planner.plan"][:, 0, 1:])
    taken, _ = drive(agent, 2, state=state, rand=rand)
    assert torch.equal(agent.world_model.shown[-1], block)
    assert torch.equal(taken[:, 0], block[:, 2])


def test_another_action_within_a_block_is_told_and_the_next_block_is_planned_anew():
    agent = make(execute=2)
    _, states = drive(agent, 2)
    block, other = states[-1]["planner.action"], torch.rand(2, 2)
    state = agent.took(states[-1], other)
    wanted = torch.stack([block[:, 0], other, block[:, 2]], 1)
    assert torch.equal(state["planner.action"], wanted)
    taken, after = drive(agent, 2, state=state)
    assert torch.equal(taken[:, 0], block[:, 2])
    assert torch.equal(agent.world_model.shown[-1], wanted)
    assert after[-1]["planner.step"].tolist() == [1, 1]
    assert not torch.equal(after[-1]["planner.plan"], state["planner.plan"])


def test_a_model_without_memory_plans_anew_right_after_another_action(integrator):
    class Pairs(integrator):
        """Two pushes in one step."""

        stride = 2
        capabilities = integrator.capabilities | {Capability.STATELESS}

        def __init__(self):
            super().__init__()
            self.action_conditioner = None

        def transition(self, state, action, *args, **options):
            for push in action.unbind(1):
                state = self.dynamics_model.transition(state, push, deterministic=True)
            return state

    class Agent(PlanningAgent):
        stride = 2

    agent = Agent(Pairs(), PlanningAgentConfig(planner={**SMALL, "candidates": 64, "horizon": 8}))
    assert not agent.remembers
    x, rand, first = torch.tensor([[1.0, 0.0], [-1.5, 0.5]]), Rand.seeded(0), torch.ones(2).bool()
    payload, state = agent.act({"state": x}, None, first, rand=rand)
    told = agent.took(state, torch.zeros(2, 1))
    payload, state = agent.act({"state": x + 1}, told, ~first, rand=rand)
    assert torch.equal(state["x"], x + 1) and state["planner.done"].tolist() == [1, 1]

    one, state = integrator(), None
    for t in range(20):  # and, left to itself, brings the mass to rest
        payload, state = agent.act({"state": x}, state, torch.full((2,), t == 0), rand=rand)
        x = one.transition(one.encode({"state": x}), payload.tensor, deterministic=True)["x"]
    assert x.abs().max() < 0.3, x


@pytest.mark.parametrize("action", [CONTINUOUS, DISCRETE])
def test_the_published_checks_pass_under_a_stride(action):
    assert "check_acting_resets" in check_agent(lambda: make(action))
    ran = check_world_model(lambda: make(action).world_model)
    assert "check_score" in ran and "check_loss_respects_episodes" not in ran


def test_an_agent_that_hands_out_whole_blocks_is_refused():
    class Whole(Strided):
        def act(self, *args, **options):
            payload, state = super().act(*args, **options)
            return ActionPayload(payload.kind, tensor=state["planner.action"]), state

    with pytest.raises(AssertionError, match=r"check_acts: train: \(3, 3, 2\)"):
        check_agent(lambda: Whole(make().world_model, make().settings))


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (TensorSpec((2,)), (2,)),
        (TensorSpec((2,)).block(3), (3, 2)),
        (TensorSpec((2, 3), low=-2.0, high=5.0), (2, 3)),
        (TensorSpec(()), ()),
        (TensorSpec((), "int64", n=4), (4,)),
        (TensorSpec((), "int64", n=4).block(3), (12,)),
    ],
)
def test_a_models_own_score_and_proposals_have_the_shape_of_its_actions(integrator, spec, shape):
    seen = []

    class Own(integrator):
        def score(self, state, actions, conditions=None, *, rand=None):
            seen.append(actions)
            return actions.flatten(2).sum(-1)

        def propose(self, state, n, horizon, conditions=None, *, rand=None):
            return torch.zeros(state.batch_size, n, horizon, *shape)

    planner = create_planner("cem", spec, {**SMALL, "kind": "cem", "proposals": 2})
    plan = planner(Own(), State({"x": torch.zeros(5, 2)}), rand=Rand.seeded(0))
    assert seen[0].shape == (5, 16, 4, *shape)
    assert plan.tensor.shape == (4, 5, *spec.shape)

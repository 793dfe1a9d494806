"""Random steps ask only those agents for an action that have something to remember of them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import worldflux
from worldflux.core.payloads import ActionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.planning import PlanningAgent
from worldflux.planning.config import PlanningAgentConfig
from worldflux.specs import TensorSpec
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyModel
from worldflux_train.collector import Collector, random_action
from worldflux_train.stepping import Stepper

SMALL = {
    "tdmpc2:1m": {"agent.plan": False, "model.mlp_dim": 8, "model.latent_dim": 8},
    "dreamerv3:size1m": {"model.deter": 16, "model.hidden": 8, "model.units": 8},
}


class Still(gymnasium.Env[Any, Any]):
    """Observes zeros; lasts 4 steps."""

    observation_space = gymnasium.spaces.Dict(
        {"state": gymnasium.spaces.Box(-1, 1, (2,), np.float32)}
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, **kwargs: Any) -> Any:
        self.left = 4
        return {"state": np.zeros(2, np.float32)}, {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return {"state": np.zeros(2, np.float32)}, 0.0, self.left == 0, False, {}


@pytest.mark.filterwarnings("ignore:An episode has terminated")
@pytest.mark.parametrize(
    ("model_id", "asked_at_random"), [("tdmpc2:1m", 0), ("dreamerv3:size1m", 6)]
)
def test_agents_without_memory_are_not_asked(model_id: str, asked_at_random: int) -> None:
    mode = gymnasium.vector.AutoresetMode.NEXT_STEP
    stepper = Stepper(gymnasium.vector.SyncVectorEnv([Still], autoreset_mode=mode), [0])
    with torch.random.fork_rng(devices=[]):
        agent: Any = worldflux.create_agent(
            model_id,
            obs_spec=stepper.obs_spec,
            action_spec=stepper.action_spec,
            **SMALL[model_id],
        )
    asked, act = [], agent.act
    assert agent.remembers == (asked_at_random > 0)
    agent.act = lambda *args, **kwargs: asked.append(1) or act(*args, **kwargs)
    collector = Collector(agent, stepper, Rand.seeded(0), torch.device("cpu"))
    chunk = collector.collect(6, 0, prefill=100)
    assert len(asked) == asked_at_random
    actions = np.concatenate([np.asarray(row["action"]) for row in chunk.rows]).ravel()
    assert len(set(actions.tolist())) == 6 and np.abs(actions).max() <= 1
    collector.collect(3, 100, prefill=100)  # in mid-episode
    assert len(asked) == asked_at_random + 3


def test_a_planning_agent_plans_for_no_random_step_and_is_told_of_each() -> None:
    mode = gymnasium.vector.AutoresetMode.NEXT_STEP
    stepper = Stepper(gymnasium.vector.SyncVectorEnv([Still, Still], autoreset_mode=mode), [0, 1])
    with torch.random.fork_rng(devices=[]):
        model = TinyModel(TinyConfig(), stepper.obs_spec, stepper.action_spec)
    small = {"kind": "cem", "horizon": 3, "candidates": 8, "elites": 2, "iterations": 1}
    agent = PlanningAgent(model, PlanningAgentConfig(planner=small))
    planned, optimize = [], agent.planner.optimize
    agent.planner.optimize = lambda *args: planned.append(1) or optimize(*args)  # type: ignore[method-assign,func-returns-value]
    collector = Collector(agent, stepper, Rand.seeded(0), torch.device("cpu"))
    for step in range(3):
        chunk = collector.collect(1, 2 * step, prefill=6)
        assert collector.state is not None
        executed = torch.as_tensor(chunk.rows[-1]["action"])
        assert executed.abs().max() > 0
        assert torch.equal(collector.state["planner.action"], executed)
    assert not planned
    collector.collect(2, 6, prefill=6)
    assert len(planned) == 2


class LastSeen(TinyAgent):
    """Its world model needs no history; the agent keeps what it saw last, or nothing."""

    keeps = False
    replay_spec: dict[str, TensorSpec] = {}

    def act(self, obs: Any, state: Any, is_first: Any, *args: Any, **kwargs: Any) -> Any:
        random_action(TensorSpec((1,)), len(is_first), kwargs["rand"])
        payload = ActionPayload("continuous", torch.zeros(len(is_first), 1))
        return payload, State({"seen": obs["state"]} if self.keeps else {})


@pytest.mark.parametrize("keeps", [True, False])
def test_an_agents_first_state_says_whether_it_remembers(keeps: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        spec = {"state": TensorSpec((2,)), "image": TensorSpec((3, 8, 8), "uint8")}
        agent = LastSeen(TinyConfig(), spec, {"action": TensorSpec((1,))})
        agent.keeps, before = keeps, torch.get_rng_state()
        assert agent.remembers  # a recurrent world model
        agent.world_model.dynamics_model.recurrent = False  # type: ignore[union-attr]
        assert agent.remembers == keeps
        assert torch.equal(torch.get_rng_state(), before)

"""Random steps ask only those agents for an action that have something to remember of them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import worldflux
from worldflux_train.collector import Collector
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
    agent.act = lambda *args, **kwargs: asked.append(1) or act(*args, **kwargs)
    collector = Collector(agent, stepper, torch.Generator().manual_seed(0), torch.device("cpu"))
    chunk = collector.collect(6, 0, prefill=100)
    assert len(asked) == asked_at_random
    actions = np.concatenate([np.asarray(row["action"]) for row in chunk.rows]).ravel()
    assert len(set(actions.tolist())) == 6 and np.abs(actions).max() <= 1
    collector.collect(3, 100, prefill=100)  # in mid-episode
    assert len(asked) == asked_at_random + 3

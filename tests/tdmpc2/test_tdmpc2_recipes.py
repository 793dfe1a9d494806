"""Recipes with the paper's settings: each is valid, gives what it says and builds."""

from __future__ import annotations

import pytest
import torch

from worldflux.factory import create_agent
from worldflux.specs import TensorSpec
from worldflux_train.config import recipes, resolve

WALKER = {"action": TensorSpec((6,), low=-1.0, high=1.0)}
SPACES = {
    "tdmpc2-dmc": {"state": TensorSpec((24,))},
    "tdmpc2-dmc-pixels": {"image": TensorSpec((9, 64, 64), "uint8", low=0, high=255)},
}


def test_every_published_recipe_is_tested_here() -> None:
    ours = {name for name in recipes() if name.startswith("tdmpc2-")}
    assert ours - {"tdmpc2-pendulum"} == set(SPACES)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_a_recipe_is_valid_and_builds(name: str) -> None:
    """Episodes of 500 agent steps under action repeat 2: 2,500 random steps, discount 0.99."""
    run = resolve(config=name)
    assert (run.id, run.env_options["action_repeat"]) == ("tdmpc2:5m", 2)
    assert (run.train.replay_capacity, run.train.envs) == (1_000_000, 1)
    config = run.family.completed({}, 500)
    with torch.device("meta"):
        made = create_agent(run.id, obs_spec=SPACES[name], action_spec=WALKER, config=config)
    plan = made.training_plan()
    assert (plan.prefill, plan.phases[0].batch, plan.phases[0].length) == (2_500, 256, 4)
    model = config.model  # type: ignore[attr-defined]
    assert model.discount(*model.lengths) == pytest.approx(0.99)

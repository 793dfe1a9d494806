"""Recipes with the papers' settings: each is valid, gives what it says and builds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from worldflux.core.agent import Agent
from worldflux.factory import create_agent, get_model_spec
from worldflux.specs import TensorSpec
from worldflux_train.config import RunConfig, recipes, resolve

GAME = {"action": TensorSpec((), "int64", n=18)}
WALKER = {"action": TensorSpec((6,), low=-1.0, high=1.0)}
STATE = {"state": TensorSpec((24,))}


def pixels(size: int, channels: int = 3) -> dict[str, TensorSpec]:
    return {"image": TensorSpec((channels, size, size), "uint8", low=0, high=255)}


# what the environments of each recipe give and take
SPACES: dict[str, tuple[dict[str, TensorSpec], dict[str, TensorSpec]]] = {
    "dreamerv3-atari100k": (pixels(64), GAME),
    "dreamerv3-atari": (pixels(96, 1), GAME),
    "dreamerv3-crafter": (pixels(64), {"action": TensorSpec((), "int64", n=17)}),
    "dreamerv3-dmc-proprio": (STATE, WALKER),
    "dreamerv3-dmc-vision": (pixels(64), WALKER),
    "dreamerv2-atari": (pixels(64, 1), GAME),
}
# agent steps, environments, train ratio or updates per step, as in the files that the recipes name
PUBLISHED: dict[str, tuple[int, int, float]] = {
    "dreamerv3-atari100k": (110_000, 1, 256),
    "dreamerv3-atari": (51_000_000, 16, 32),
    "dreamerv3-crafter": (1_100_000, 1, 512),
    "dreamerv3-dmc-proprio": (1_100_000, 16, 1024),
    "dreamerv3-dmc-vision": (1_100_000, 16, 256),
}


def built(run: RunConfig, name: str) -> Agent:
    obs, action = SPACES[name]
    with torch.device("meta"):
        made: Any = create_agent(run.id, obs_spec=obs, action_spec=action, config=run.family)
    assert isinstance(made, Agent)
    return made


def test_every_published_recipe_is_tested_here() -> None:
    small = {"dreamerv3-cartpole", "dreamerv2-catch"}
    ours = {name for name in recipes() if name.startswith(("dreamerv3-", "dreamerv2-"))}
    assert ours - small == set(SPACES)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_a_recipe_is_valid_and_builds(name: str) -> None:
    run = resolve(config=name)
    agent = built(run, name)
    size = run.env_options.get("size")
    if size is not None:
        assert next(iter(SPACES[name][0].values())).shape[1:] == (size, size)
    assert len(agent.training_plan().phases) == 1


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_dreamerv3_has_the_published_numbers(name: str) -> None:
    """Steps, environments and ratio; 16 sequences of 64, so many updates per step as they make."""
    run, (steps, envs, ratio) = resolve(config=name), PUBLISHED[name]
    assert (run.train.steps, run.train.envs) == (steps, envs)
    assert (run.train.replay_capacity, run.train.replay_online) == (5_000_000, True)
    assert run.train.precision == "bf16"
    (phase,) = built(run, name).training_plan().phases
    assert (phase.batch, phase.length, phase.context, phase.minimum) == (16, 64, 1, 1024)
    assert phase.updates_per_step == ratio / 1024


def test_atari_is_drawn_as_dreamerv3_draws_it() -> None:
    """100k: RGB, no sticky actions, those the game has; else grey, sticky, all 18."""
    small, large = (resolve(config=f"dreamerv3-{n}").env_options for n in ("atari100k", "atari"))
    assert small["resize"] == large["resize"] == "bilinear"
    assert (small["size"], small.get("gray", False), small["sticky"]) == (64, False, 0.0)
    assert (large["size"], large["gray"], large["sticky"]) == (96, True, 0.25)
    assert "full_action_space" not in small
    assert large["full_action_space"]


def test_a_preset_brings_the_replay_of_its_paper() -> None:
    assert get_model_spec("dreamerv3").defaults_of("size1m") == {"train.replay_online": True}
    assert resolve("dreamerv3:size1m", "wf/catch").train.replay_online
    assert resolve("dreamerv2:atari", "wf/catch").train.replay_capacity == 2_000_000
    assert not resolve(config="dreamerv3-cartpole").train.replay_online


def test_another_game_keeps_the_recipes_settings() -> None:
    run = resolve(env_id="atari/Breakout", config="dreamerv3-atari100k")
    assert (run.env_id, run.env_options["resize"]) == ("atari/Breakout", "bilinear")

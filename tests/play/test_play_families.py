"""Families of every kind: vectors, latents without a decoder, blocks of actions, latent actions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import worldflux
from worldflux.errors import CapabilityError
from worldflux.specs import TensorSpec
from worldflux_play.actions import described
from worldflux_play.films import side_by_side
from worldflux_play.game import Game
from worldflux_play.opened import Played

IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
PUSH = {"action": TensorSpec((1,), low=-1.0, high=1.0)}


def game_of(model, env=None, agent=None, **options):
    return Game(Played("it", model.eval(), Path("unused"), agent, env, options))


def family(name, package, *spaces, agent=False):
    pytest.importorskip(package, reason=f"{name} is in {package.replace('_', '-')}")
    obs, action = spaces
    make = worldflux.create_agent if agent else worldflux.create_world_model
    return make(name, obs_spec=obs, action_spec=action)


def test_vectors_are_bars_beside_what_the_environment_draws():
    pytest.importorskip("worldflux_envs", reason="the pendulum is in worldflux-envs")
    model = family("rssm:small", "worldflux_dreamer", {"state": TensorSpec((3,))}, PUSH)
    game = game_of(model, "wf/pendulum")
    shown = game.advance(np.array([0.5], np.float32))
    assert len(shown.facts["bars"]["real"]) == len(shown.facts["bars"]["dream"]) == 3
    assert shown.facts["bars"]["real"] == pytest.approx(game.moment.obs["state"].tolist(), abs=1e-4)
    assert shown.facts["distance"] > 0 and set(shown.pixels) == {"real"}
    assert side_by_side(shown).shape == (256, 520, 3)
    assert "gradient" in game.actors()
    assert described(game.spec) == {"kind": "numbers", "size": 1, "sliders": 1}
    game.close()


def test_a_model_without_decoder_shows_its_latent_and_how_far_it_is():
    pytest.importorskip("worldflux_envs", reason="the pendulum is in worldflux-envs")
    model = family("lewm:mini", "worldflux_jepa", IMAGE, PUSH)
    game = game_of(model, "wf/pendulum", obs="pixels", size=64)
    assert not game.dream.decodes
    shown = game.advance(np.array([1.0], np.float32))
    assert shown.facts["reward"]["dream"] is None and shown.facts["distance"] > 0
    assert len(shown.facts["bars"]["real"]) == len(shown.facts["bars"]["dream"]) == 16
    assert set(shown.pixels) == {"real"}
    game.resync()
    game.close()


def test_a_step_of_a_model_with_a_stride_is_several_of_reality():
    pytest.importorskip("worldflux_envs", reason="the pendulum is in worldflux-envs")
    model = family("lewm:mini", "worldflux_jepa", IMAGE, PUSH)
    assert model.stride == 5
    game = game_of(model, "wf/pendulum", obs="pixels", size=64)
    env = worldflux.make_env("wf/pendulum", obs="pixels", size=64)
    env.reset(seed=0)
    shown = game.advance(np.array([1.0], np.float32))
    rewards = [env.step(np.array([1.0], np.float32))[1] for _ in range(5)]
    assert shown.facts["reward"]["real"] == pytest.approx(sum(rewards))
    assert shown.facts["action"] == [1.0] and game.actors() == ["person", "random"]
    game.close()


def test_latent_actions_are_on_the_digits():
    model = family("genie:tiny", "worldflux_genie", IMAGE, {})
    game = game_of(model)
    found = described(game.spec)
    assert found["keys"] == [[str(number)] for number in range(1, game.spec.n + 1)]
    image = np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    game.begin_from("image", image={"image": image})
    assert set(game.advance(np.array(5)).pixels) == {"dream"}


def test_a_model_without_dynamics_is_refused():
    model = family("ijepa:mini", "worldflux_jepa", IMAGE, {})
    with pytest.raises(CapabilityError, match="has no dynamics: it imagines nothing"):
        game_of(model)

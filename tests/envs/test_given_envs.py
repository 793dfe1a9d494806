"""Environments given as objects and functions, and ids in any spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import worldflux
from worldflux import EnvSpec, list_envs, make_env, make_vec_env, register
from worldflux.errors import ConfigError, EnvError, UnknownIdError
from worldflux.testing import check_env
from worldflux_envs.functions import FunctionEnv


class Coin(gymnasium.Env[Any, Any]):
    """Guess which way a coin falls; an episode is `length` tosses."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, length: int = 4, render_mode: str | None = None) -> None:
        self.length, self.render_mode = length, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.left = self.length
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return self._seen(), float(action == 1), self.left == 0, False, {}

    def render(self) -> Any:
        return np.full((8, 8, 3), 30 * self.left, np.uint8)

    def _seen(self) -> Any:
        return self.np_random.random(2).astype(np.float32)


def short() -> Coin:
    return Coin(2)


def test_objects_functions_and_classes_keep_the_contract() -> None:
    check_env(lambda: make_env(Coin, length=3))
    for env in (Coin(3), Coin, short, lambda render_mode=None: Coin(3, render_mode)):
        made = make_env(env)
        obs, _ = made.reset(seed=1)
        assert obs["state"].shape == (2,) and made.action_space == spaces.Discrete(2)
    drawn = make_env(Coin, obs="pixels", size=8)
    assert drawn.reset(seed=0)[0]["image"].shape == (3, 8, 8)


def test_a_function_without_arguments_needs_no_render_mode() -> None:
    with pytest.raises(EnvError, match=r"short takes no render_mode.*render_mode='rgb_array'"):
        make_env(short, obs="pixels")


def test_vectors_of_a_function() -> None:
    vec = make_vec_env(short, 3, mode="sync")
    obs, _ = vec.reset(seed=[1, 2, 3])
    assert obs["state"].shape == (3, 2)
    vec.close()
    with pytest.raises(EnvError, match="One environment object is one environment"):
        make_vec_env(Coin(3), 2)


def drift(**options: Any) -> FunctionEnv:
    """A point that actions push over a noisy line, until it is out of sight."""
    return FunctionEnv(
        spaces.Box(-3, 3, (1,), np.float32), spaces.Box(-1, 1, (1,), np.float32),
        start=lambda rng: rng.normal(size=1),
        transition=lambda state, action, rng: state + action + 0.1 * rng.normal(size=1),
        reward=lambda state, action, after: -float(abs(after[0])),
        end=lambda state: bool(abs(state[0]) > 2),
        observe=lambda state: np.clip(state, -3, 3).astype(np.float32),
        render=lambda state: np.full((8, 8, 3), int(40 * min(abs(state[0]), 5)), np.uint8),
        **options,
    )  # fmt: skip


def test_an_environment_of_plain_functions() -> None:
    check_env(lambda: make_env(drift))
    env = make_env(drift, obs="both", size=8)
    obs, _ = env.reset(seed=4)
    after, reward, _, _, _ = env.step(np.ones(1, np.float32))
    assert reward == pytest.approx(-abs(float(after["state"][0])), abs=1e-6)
    assert (after["image"] != obs["image"]).any()
    own = drift()
    own.reset(seed=1)
    saved = own.get_state()
    first = own.step(np.zeros(1, np.float32))[0]
    own.set_state({**saved})
    own.np_random.random()
    own.set_state(saved)
    np.testing.assert_array_equal(own.step(np.zeros(1, np.float32))[0], first)
    with pytest.raises(EnvError, match="without `render` draws no pictures"):
        FunctionEnv(own.observation_space, own.action_space, start=lambda rng: 0,
                    transition=lambda *_: 0, render_mode="rgb_array")  # fmt: skip


def test_what_is_no_environment_says_what_is() -> None:
    with pytest.raises(ConfigError, match="or a function that makes one; got int"):
        make_env(7)


def test_a_run_takes_a_function_and_an_object(tmp_path: Path) -> None:
    train = pytest.importorskip("worldflux_train")
    quick = {
        "train.steps": 24, "train.eval_episodes": 1, "train.threads": 1, "train.device": "cpu",
        "train.replay_capacity": 100, "agent.batch": 2, "agent.planner.iterations": 1,
        "train.envs": 2,
    }  # fmt: skip
    config = train.resolve("ring:small", short, overrides=quick)
    assert config.env_id == "given/short"
    done = train.train(config, tmp_path / "function")
    assert done.outcome == "finished"
    assert train.evaluate_run(tmp_path / "function", 2).lengths == [2, 2]
    one = Coin(3)
    config = train.resolve("ring:small", one, overrides=quick)
    assert config.env_id == "given/Coin"
    train.train(config, tmp_path / "object")
    assert train.evaluate_run(tmp_path / "object", 1).lengths == [3]
    assert not hasattr(one, "left")  # copies were played
    from worldflux import given

    given.forget("Coin")
    with pytest.raises(EnvError, match=r"given/Coin was an object.*Give it again.*name='Coin'"):
        train.evaluate_run(tmp_path / "object", 1)
    with register(Coin(3), name="Coin") as again:
        assert again.id == "given/Coin"
        assert train.evaluate_run(tmp_path / "object", 1).lengths == [3]


def test_ids_ignore_case_hyphens_and_underscores() -> None:
    assert make_env("GYM/CartPole-v1").spec is not None
    families = ["dreamer-v3", "Dreamer_V3", "dreamerv3", "dreamer", "td-mpc2", "TDMPC_2"]
    found = [worldflux.get_model_spec(name).family for name in families]
    assert found == ["dreamerv3"] * 4 + ["tdmpc2"] * 2
    assert worldflux.create_config("dreamer-v3:size_1m") == worldflux.create_config(
        "dreamerv3:size1m"
    )
    assert worldflux.get_env_spec("dm_control").backend == "dmc"


def test_a_backend_can_be_registered_and_taken_back() -> None:
    def make(task: str, **options: Any) -> Coin:
        return Coin(int(task), **options)

    spec = EnvSpec("coin", make, tasks=lambda: ["3", "5"], description="tossed")
    with register(spec) as coin:
        assert coin.id == "coin" and list_envs("coin") == ["coin/3", "coin/5"]
        assert "coin" in list_envs()
        env = make_env("coin/3", max_episode_steps=2)
        env.reset(seed=0)
        env.step(0)
        assert env.step(1)[3]
        with pytest.raises(ConfigError, match="The environment backend 'coin' is there already"):
            register(spec)
    with pytest.raises(UnknownIdError, match=r"If it was registered in the process that used it"):
        make_env("coin/3")
    with pytest.raises(ConfigError, match="'gym' is there already. Register yours under"):
        register(EnvSpec("gym", make))


@pytest.mark.slow  # imports every simulator
def test_the_tasks_of_all_backends() -> None:
    found = list_envs(tasks=True)
    assert {"gym/CartPole-v1", "wf/catch"} <= set(found) and len(found) == len(set(found))


def test_tasks_are_listed_for_a_backend_and_for_a_family() -> None:
    with pytest.raises(ConfigError, match=r"list_envs takes a backend, such as 'gym', got 'gym/Ca"):
        list_envs("gym/CartPole-v1")
    games = list_envs("wf")
    assert list_envs("wf", model="tdmpc2") == ["wf/pendulum", "wf/two-room"]  # continuous actions
    images = list_envs("wf", model="iris:tiny", obs="pixels", size=16)
    assert set(images) < set(games) and "wf/catch" in images and "wf/pendulum" not in images
    with pytest.raises(ConfigError, match="takes obs only together with a model"):
        list_envs("wf", obs="pixels")

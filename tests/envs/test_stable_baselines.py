"""Stable-Baselines3 learns on vectors that `make_vec_env` makes."""

from __future__ import annotations

import numpy as np
import pytest

import worldflux
from worldflux.errors import EnvError

pytest.importorskip("stable_baselines3", reason="needs stable-baselines3")

from stable_baselines3 import PPO

from worldflux_envs.dream import WorldModelVectorEnv
from worldflux_envs.stable_baselines import StableBaselinesVec


def vec(count: int = 3, mode: str = "sync", **options) -> StableBaselinesVec:
    return StableBaselinesVec(
        worldflux.make_vec_env("gym/CartPole-v1", count, mode=mode, **options)
    )


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_ended_row_shows_its_next_episode_and_its_last_observation_in_its_info(mode):
    env, plain = vec(2, mode), worldflux.make_env("gym/CartPole-v1", max_episode_steps=500)
    env.seed(7)
    start = env.reset()["state"]
    first = [plain.reset(seed=env.vec.seeds[i])[0]["state"] for i in range(2)]
    assert np.array_equal(start, first)
    ended = 0
    while not ended:
        obs, _, done, infos = env.step(np.ones(2, np.int64))
        ended = int(done.sum())
    row = int(np.flatnonzero(done)[0])
    info, other = infos[row], infos[1 - row]
    assert abs(info["terminal_observation"]["state"][2]) > 0.2  # the pole has fallen
    assert np.abs(obs["state"][row]).max() <= 0.05 and env.vec.episodes[row] == 1
    assert info["episode"]["r"] == info["episode"]["l"] > 5 and not info["TimeLimit.truncated"]
    assert not other or done[1 - row]
    again, seed = obs["state"][row], env.vec.seeds[row]
    assert np.array_equal(again, plain.reset(seed=seed)[0]["state"])
    after = env.step(np.ones(2, np.int64))[0]["state"][row]
    assert np.array_equal(after, plain.step(1)[0]["state"])  # its action was not ignored
    env.close()


def test_a_time_limit_is_told_from_an_end():
    env = vec(1, max_episode_steps=3)
    env.reset()
    infos = [env.step(np.zeros(1, np.int64))[3][0] for _ in range(3)]
    assert infos[:2] == [{}, {}] and infos[2]["TimeLimit.truncated"]


def test_what_cannot_reset_single_rows_is_refused_with_what_to_do():
    model = worldflux.create_world_model("dreamerv3:size1m", obs_shape=(3,), action_dim=3)
    with pytest.raises(EnvError, match=r'cannot reset single rows\. .* mode="sync".* DummyVecEnv'):
        StableBaselinesVec(WorldModelVectorEnv(model, 2, horizon=5))
    with pytest.raises(EnvError, match=r"cannot be set on rows"):
        vec(1).set_attr("x", 1)
    with pytest.raises(EnvError, match=r"call `.vec`'s own"):
        vec(1).env_method("render")


def test_ppo_takes_it_and_its_callbacks_see_the_episodes():
    agent = PPO("MultiInputPolicy", vec(4), n_steps=64, batch_size=64, n_epochs=1, seed=0)
    agent.learn(512)
    assert len(agent.ep_info_buffer) > 5 and agent.num_timesteps == 512


@pytest.mark.slow
def test_ppo_learns_cartpole_on_it():
    agent = PPO("MultiInputPolicy", vec(8), n_steps=64, learning_rate=1e-3, seed=0)
    agent.learn(40_000)
    assert np.mean([info["r"] for info in agent.ep_info_buffer]) > 120  # random: 22

"""Another library learns inside a dream: Stable-Baselines3's PPO, evaluated in the real game."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import worldflux
from worldflux.core.batch import Batch
from worldflux.core.rand import Rand, randint
from worldflux.specs import TensorSpec
from worldflux_envs.dream import WorldModelEnv

pytestmark = pytest.mark.slow
OBS, ACTION = {"state": TensorSpec((3,))}, {"action": TensorSpec((), "int64", n=3)}
LENGTH = 10  # one game of catch: nine moves, ten observations


def games(count: int, seed: int) -> Batch:
    """Games of catch played at random."""
    env, rng = worldflux.make_env("wf/catch"), np.random.default_rng(seed)
    obs = torch.zeros(count, LENGTH, 3)
    action, reward = torch.zeros(count, LENGTH, dtype=torch.int64), torch.zeros(count, LENGTH)
    for game in range(count):
        obs[game, 0] = torch.as_tensor(env.reset(seed=int(rng.integers(2**31)))[0]["state"])
        for t in range(LENGTH - 1):
            action[game, t] = int(rng.integers(3))
            found, gain, *_ = env.step(int(action[game, t]))
            obs[game, t + 1], reward[game, t + 1] = torch.as_tensor(found["state"]), gain
    first, last = (torch.zeros(count, LENGTH, dtype=torch.bool) for _ in range(2))
    first[:, 0] = last[:, -1] = True
    return Batch({"state": obs}, first, last, last.clone(), action, reward)


def taught(updates: int) -> worldflux.WorldModel:
    """A small DreamerV3 world model after so many updates on random games."""
    torch.manual_seed(0)
    model = worldflux.create_world_model(
        "dreamerv3:size1m", obs_spec=OBS, action_spec=ACTION,
        **{"model.deter": 128, "model.hidden": 64, "model.stoch": 8, "model.classes": 8},
    )  # fmt: skip
    data, rand = games(400, seed=0), Rand.seeded(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(updates):
        rows = rand.draw("rows", (32,), randint(400))
        optimizer.zero_grad()
        model.loss(data.map(lambda x, rows=rows: x[rows]), rand=rand).loss.backward()
        optimizer.step()
    return model


def real_return(policy, episodes: int = 100) -> float:
    """Mean return of the policy in the real game."""
    env, total = worldflux.make_env("wf/catch"), 0.0
    for seed in range(episodes):
        (obs, _), over = env.reset(seed=10_000 + seed), False
        while not over:
            obs, reward, over, _, _ = env.step(int(policy.predict(obs, deterministic=True)[0]))
            total += reward
    return total / episodes


def dreamt_policy(model, steps: int):
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = DummyVecEnv([lambda: WorldModelEnv(model, horizon=12, samples=1)] * 4)
    ppo = PPO("MultiInputPolicy", env, n_steps=128, gamma=0.95, learning_rate=1e-3, seed=0)
    return ppo.learn(steps)


def test_ppo_learns_catch_in_a_dream_of_it():
    pytest.importorskip("stable_baselines3", reason="needs stable-baselines3")
    with torch.random.fork_rng(devices=[]):
        assert real_return(dreamt_policy(taught(800), 30_000)) >= 0.6
        assert real_return(dreamt_policy(taught(0), 2_000)) <= 0.0  # a dream of nothing

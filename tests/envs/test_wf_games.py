"""Our own games: exact against Gymnasium's, independent rows, oracles that are good."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from worldflux import make_env, make_vec_env
from worldflux.errors import EnvError
from worldflux.testing import check_env
from worldflux_envs.backends import wf
from worldflux_envs.wf.chance import uniforms
from worldflux_envs.wf.game import Game
from worldflux_envs.wf.games import GAMES, game
from worldflux_envs.wf.rows import Rows

SEEDS = torch.arange(64)


def play(name: str, policy: str, seeds: torch.Tensor = SEEDS) -> torch.Tensor:
    """Mean return of one episode per row."""
    rows = Rows(game(name))
    rows.reset(seeds)
    total, alive = torch.zeros(len(seeds)).double(), torch.ones(len(seeds), dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    while alive.any():
        action = (
            rows.game.oracle(rows.state) if policy == "oracle" else random(rows.game, generator)
        )
        rows.state, reward, terminated, truncated = rows.advance(rows.state, action)
        total += reward * alive
        alive &= ~(terminated | truncated)
    return total


def random(found: Game, generator: torch.Generator, count: int = len(SEEDS)) -> torch.Tensor:
    if found.choices is not None:
        return torch.randint(found.choices, (count,), generator=generator)
    return torch.rand(count, found.controls, generator=generator) * 2 - 1


@pytest.mark.parametrize(
    ("name", "oracle", "chance"),
    [
        ("catch", 1.0, -0.3),
        ("cartpole", 495.0, 40.0),
        ("pendulum", -220.0, -900.0),
        ("two-room", 0.98, 0.2),
        ("sprites", 6.0, 2.5),
    ],
)
def test_oracles_are_good_and_chance_is_not(name, oracle, chance):
    assert play(name, "oracle").mean() >= oracle
    assert play(name, "random").mean() <= chance


@pytest.mark.parametrize("obs", ["state", "pixels"])
@pytest.mark.parametrize("name", list(GAMES))
def test_the_contract_holds(name, obs):
    options = {"size": 32} if obs == "pixels" else {}
    fixed = name == "catch"  # the ball takes nine steps to the ground
    ran = check_env(lambda: wf.make(name, obs=obs, **options), limit=600, fixed_length=fixed)
    assert "check_gymnasium" in ran


@pytest.mark.parametrize("mode", ["native", "sync"])
def test_the_size_of_pictures_that_are_not_asked_for_is_refused(mode):
    with pytest.raises(EnvError, match="size=32 is the size of images, .* add obs='pixels'"):
        wf.make_vec("catch", 2, size=32, mode=mode)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("cartpole", "CartPole-v1"), ("pendulum", "Pendulum-v1")]
)
def test_equal_to_gymnasium(ours, theirs):
    env, reference = wf.make(ours).unwrapped, gymnasium.make(theirs).unwrapped
    env.reset(seed=3)
    reference.reset(seed=3)
    state = {key: value[0].numpy() for key, value in env.rows.state.items()}
    reference.state = state["s"] if "s" in state else np.array([state["angle"], state["spin"]])
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = int(rng.integers(2)) if ours == "cartpole" else rng.uniform(-1, 1, 1).astype("f4")
        scaled = action if ours == "cartpole" else action.astype(np.float64) * 2
        obs, reward, terminated, _, _ = env.step(action)
        expected, their_reward, their_end, _, _ = reference.step(scaled)
        np.testing.assert_allclose(obs["state"], expected, rtol=1e-5, atol=1e-6)
        assert reward == pytest.approx(their_reward, rel=1e-9) and terminated == their_end
        if terminated:
            break


@pytest.mark.parametrize("name", list(GAMES))
def test_rows_do_not_depend_on_each_other(name):
    together, alone = Rows(game(name)), Rows(game(name))
    together.reset(SEEDS[:8])
    alone.reset(SEEDS[3:4])
    generator = torch.Generator().manual_seed(1)
    for _ in range(game(name).horizon + 5):
        action = random(together.game, generator, 8)
        a, b = together.step(action), alone.step(action[3:4])
        assert torch.equal(a.obs["state"][3], b.obs["state"][0])
        assert a.reward[3] == b.reward[0] and a.is_first[3] == b.is_first[0]


@pytest.mark.parametrize("name", list(GAMES))
def test_native_and_sync_give_the_same_episodes(name):
    native, sync = (wf.make_vec(name, 3, mode=mode, seed=5) for mode in ("native", "sync"))
    space = native.single_action_space
    space.seed(0)
    first, second = native.reset(seed=5)[0], sync.reset(seed=5)[0]
    for _ in range(30):
        for key, value in first.items():
            np.testing.assert_array_equal(value, second[key])
        actions = np.stack([space.sample() for _ in range(3)])
        first, *a, _ = native.step(actions)
        second, *b, _ = sync.step(actions)
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)
    native.close()
    sync.close()


@pytest.mark.parametrize(
    ("mode", "other"), [("native", "native"), ("native", "sync"), ("sync", "native")]
)
def test_a_vector_resumes_bit_for_bit_in_any_mode(mode, other):
    env = wf.make_vec("sprites", 2, mode=mode, seed=1)
    env.reset(seed=1)
    for _ in range(20):
        env.step(np.array([2, 3]))
    saved, twin = env.get_state(), wf.make_vec("sprites", 2, mode=other)
    twin.reset(seed=9)
    obs, is_first = twin.set_state(saved)
    assert not is_first.any()
    a, b = env.step(np.array([1, 3])), twin.step(np.array([1, 3]))
    np.testing.assert_array_equal(a[0]["state"], b[0]["state"])
    assert set(obs) == {"state"}


def test_a_time_limit_is_truncation():
    env = wf.make("pendulum", max_episode_steps=7)
    env.reset(seed=0)
    flags = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(7)]
    assert flags[-1] == (False, True) and flags[-2] == (False, False)


def test_the_goal_is_an_observation_of_its_own_state():
    env = wf.make("two-room", obs="pixels", size=32)
    obs, _ = env.reset(seed=2)
    assert obs["goal"].shape == (3, 32, 32) and not np.array_equal(obs["goal"], obs["image"])
    done = False
    while not done:
        obs, reward, done, _, _ = env.step(env.unwrapped.oracle())
    assert reward == 1.0


def test_unknown_tasks_and_options_are_explained():
    with pytest.raises(EnvError, match="wf has no task 'pendulm'. Did you mean 'pendulum'"):
        wf.make("pendulm")
    with pytest.raises(EnvError, match="wf takes no option 'colour'"):
        wf.make("catch", colour=1)
    with pytest.raises(NotImplementedError, match="catch has no goal"):
        game("catch").goal({})


def test_chance_is_uniform_and_positional():
    numbers = uniforms(torch.arange(1000), 10)
    assert (numbers >= 0).all() and (numbers < 1).all()
    assert abs(float(numbers.mean()) - 0.5) < 0.01 and abs(float(numbers.var()) - 1 / 12) < 0.005
    assert torch.equal(uniforms(torch.tensor([7]), 3, 4), uniforms(torch.tensor([7]), 7)[:, 4:])
    assert len(numbers.unique()) == numbers.numel()


def test_the_backend_lists_every_game():
    assert wf.tasks() == list(GAMES)


def test_pictures_have_content():
    for name in GAMES:
        rows = Rows(game(name), obs="pixels", size=48)
        image = rows.reset(SEEDS[:2])["image"]
        assert image.dtype == torch.uint8 and image.shape == (2, 3, 48, 48)
        assert len(image[0].flatten(1).unique(dim=1).T) > 8


def test_native_rows_are_drawn_like_single_environments() -> None:
    vec = make_vec_env("wf/catch", 3, mode="native", render_mode="rgb_array")
    vec.reset(seed=[1, 2, 3])
    frames = vec.render()
    assert len(frames) == 3
    for seed, frame in zip((1, 2, 3), frames, strict=True):
        one = make_env("wf/catch", render_mode="rgb_array")
        one.reset(seed=seed)
        np.testing.assert_array_equal(frame, one.render())
    with pytest.raises(EnvError, match=r"natively only without action_repeat: leave that out, or"):
        make_vec_env("wf/catch", 3, mode="native", action_repeat=2)

"""Vector environments: the same episodes in every mode, autoreset, saving and resuming."""

import json
import time
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from worldflux.errors import EnvError
from worldflux_envs.backends import gym
from worldflux_envs.seeding import episode_seed
from worldflux_envs.vector.choice import choose, make_vec, step_cost
from worldflux_envs.vector.sync import SyncVec

MODES = ("sync", "async")


class Lights(gymnasium.Env):
    """A random light each step, without a state interface; `drift` makes every process differ."""

    observation_space = spaces.Box(0, 255, (4, 4, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self, length: int = 6, drift: bool = False) -> None:
        self.length, self.drift = length, drift

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.length
        return self._light(0), {"options": options or {}}

    def step(self, action):
        self.left -= 1
        return self._light(action), float(action), self.left == 0, False, {"left": self.left}

    def _light(self, action):
        generator = np.random.default_rng() if self.drift else self.np_random
        return (generator.integers(0, 200, (4, 4, 3)) + action).astype(np.uint8)


def play(vec, steps, seed=0):
    """All the rows of `steps` steps with random actions."""
    vec.action_space.seed(seed)
    return [vec.step(vec.action_space.sample()) for _ in range(steps)]


def same(left, right):
    return all(
        all(np.array_equal(a[0][key], b[0][key]) for key in a[0])
        and all(np.array_equal(x, y) for x, y in zip(a[1:4], b[1:4], strict=True))
        and np.array_equal(a[4]["is_first"], b[4]["is_first"])
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1", Lights])
def test_all_modes_give_the_same_episodes(task):
    vecs = [gym.make_vec(task, 3, mode="sync"), gym.make_vec(task, 3, mode="async", workers=2)]
    try:
        first = [vec.reset(seed=11)[0] for vec in vecs]
        assert all(np.array_equal(first[0][key], first[1][key]) for key in first[0])
        assert same(*(play(vec, 60) for vec in vecs))
    finally:
        for vec in vecs:
            vec.close()


def test_first_episodes_are_gymnasiums_own():
    ours = gym.make_vec("CartPole-v1", 2, mode="sync")
    theirs = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    assert np.array_equal(ours.reset(seed=3)[0]["state"], theirs.reset(seed=3)[0])
    action = np.array([0, 1])
    assert np.array_equal(ours.step(action)[0]["state"], theirs.step(action)[0])


@pytest.mark.parametrize("mode", MODES)
def test_an_ended_episode_is_reset_on_the_next_step(mode):
    vec = gym.make_vec(Lights, 2, mode=mode, length=2)
    try:
        assert vec.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        _, infos = vec.reset(seed=0)
        assert infos["is_first"].all()
        action = np.array([2, 1])
        vec.step(action)
        _, rewards, terminated, truncated, infos = vec.step(action)
        assert terminated.all() and not truncated.any() and rewards.tolist() == [2, 1]
        assert infos["left"].tolist() == [0, 0] and not infos["is_first"].any()
        obs, rewards, terminated, _, infos = vec.step(action)
        assert infos["is_first"].all() and not terminated.any() and rewards.tolist() == [0, 0]
        assert vec.episodes.tolist() == [1, 1]
        expected = gym.make(Lights).reset(seed=episode_seed(1, 1))[0]["image"]
        assert np.array_equal(obs["image"][1], expected)
    finally:
        vec.close()


def test_the_caller_may_choose_the_seed_of_every_episode():
    vec = gym.make_vec(Lights, 2, mode="sync", length=2)
    asked = []

    def seeds(env, episode):
        asked.append((env, episode))
        return 100 * env + episode

    vec.episode_seeds = seeds
    vec.reset()
    play(vec, 3)
    assert asked == [(0, 0), (1, 0), (0, 1), (1, 1)] and vec.seeds == [1, 101]


def test_seeds_and_options():
    vec = gym.make_vec(Lights, 2, mode="sync", seed=4)
    a = vec.reset()[0]["image"]
    b = vec.reset(seed=[4, 5], options={"x": 1})
    assert np.array_equal(a, b[0]["image"]) and b[1]["options"]["x"].tolist() == [1, 1]
    c = vec.reset(seed=[4, None])[0]["image"]
    assert np.array_equal(c[0], a[0]) and not np.array_equal(c[1], a[1])
    with pytest.raises(EnvError, match="2 environments were given 3 seeds"):
        vec.reset(seed=[1, 2, 3])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", ["CartPole-v1", Lights])
def test_a_saved_vector_goes_on_bit_for_bit(mode, task):
    vec, other = (gym.make_vec(task, 2, mode=mode) for _ in range(2))
    try:
        vec.reset(seed=1)
        for steps in (5, 6, 7, 13):  # some in the middle, some just ended
            play(vec, steps, seed=steps)
            state = json.loads(json.dumps(vec.get_state()))
            obs, is_first = other.set_state(state)
            assert not is_first.any()
            assert all(np.array_equal(obs[key], vec.buffers[key]) for key in obs)
            assert same(play(vec, 30), play(other, 30))
    finally:
        vec.close()
        other.close()


def test_an_episode_that_cannot_be_replayed_begins_anew(caplog):
    vec, other = (gym.make_vec(Lights, 1, mode="sync", length=9, drift=True) for _ in range(2))
    vec.reset(seed=1)
    play(vec, 4)
    _, is_first = other.set_state(vec.get_state())
    assert is_first.tolist() == [True] and other.episodes.tolist() == [1]
    assert "by replaying the 4 actions of episode 0 (seed 1): a new episode begins" in caplog.text
    assert len(play(other, 9)) == 9 and other._ended.tolist() == [True]


def test_a_state_of_another_size_is_refused():
    vec = gym.make_vec(Lights, 1, mode="sync")
    vec.reset(seed=0)
    with pytest.raises(EnvError, match="saved state is of 1 environments, this vector has 2"):
        gym.make_vec(Lights, 2, mode="sync").set_state(vec.get_state())


@pytest.mark.parametrize("mode", MODES)
def test_environments_can_be_rendered_and_asked(mode):
    vec = gym.make_vec(Lights, 2, mode=mode, length=4)
    try:
        vec.reset(seed=0)
        vec.step([0, 0])
        assert vec.call("left") == (3, 3)
        assert vec.call("_light", 0)[0].shape == (4, 4, 3)
        with pytest.raises(EnvError, match=r"(?s)call failed in environment 0 of gym/Lights.*nope"):
            vec.call("nope")
        with pytest.raises(EnvError, match="render failed in environment 0 of gym/Lights"):
            vec.render()
    finally:
        vec.close()


@pytest.mark.parametrize("mode", MODES)
def test_stepping_before_a_reset_or_after_closing_is_refused(mode):
    vec = gym.make_vec(Lights, 1, mode=mode)
    with pytest.raises(EnvError, match="gym/Lights was not reset: it cannot be stepped"):
        vec.step([0])
    vec.reset(seed=0)
    vec.close()
    with pytest.raises(EnvError, match="gym/Lights is closed: it cannot be stepped"):
        vec.step([0])


def test_observations_are_copies_unless_asked_otherwise():
    vec = gym.make_vec(Lights, 1, mode="sync")
    obs = vec.reset(seed=0)[0]["image"]
    before = obs.copy()
    play(vec, 1)
    assert np.array_equal(obs, before)
    vec = gym.make_vec(Lights, 1, mode="sync", copy=False)
    assert vec.reset(seed=0)[0]["image"] is vec.step([0])[0]["image"]


@pytest.mark.parametrize(
    ("costs", "mode"),
    [
        ({"sync": 4.0, "async": 3.5}, "sync"),
        ({"sync": 4.0, "async": 3.0}, "async"),
        ({"native": 4.0, "sync": 3.5, "async": 3.3}, "native"),
        ({"native": 4.0, "sync": 3.0, "async": 2.9}, "sync"),
        ({"native": 4.0, "sync": 5.0, "async": 2.5}, "native"),
        ({"native": 4.0, "sync": 5.0, "async": 1.5}, "async"),
    ],
)
def test_the_cheapest_mode_is_chosen_if_it_is_clearly_so(costs, mode):
    assert choose(costs) == mode


class Slow(Lights):
    """Known to cost 5 ms a step."""

    def step(self, action):
        time.sleep(0.005)
        return super().step(action)


class Batch(SyncVec):
    """Known to cost `seconds` a step of all; its number of rows is told."""

    def __init__(self, task, num_envs, *, told, seconds, **options):
        told.append(num_envs)
        self.seconds = seconds
        super().__init__(lambda: gym.make(Lights), num_envs, **options)

    def execute(self, indices, commands):
        time.sleep(self.seconds)
        return super().execute(indices, commands)


def test_a_step_cost_is_measured_and_leaves_the_callers_draws_alone():
    quick, slow = gym.make(Lights), gym.make(Slow)
    quick.action_space.seed(3)
    expected = [quick.action_space.sample() for _ in range(9)]
    quick.action_space.seed(3)
    assert step_cost(quick) < 5e-3 < step_cost(slow)
    assert [quick.action_space.sample() for _ in range(9)] == expected


@pytest.mark.parametrize(("task", "kind"), [(Lights, "SyncVec"), (Slow, "AsyncVec")])
def test_auto_spreads_steps_that_cost_over_processes(task, kind):
    vec = gym.make_vec(task, 8, workers=4)
    vec.close()
    assert type(vec).__name__ == kind


@pytest.mark.parametrize(
    ("single", "seconds", "kind"), [(Slow, 0.0, "Batch"), (Lights, 0.02, "SyncVec")]
)
def test_auto_takes_a_native_vector_where_it_measures_faster(single, seconds, kind):
    told = []
    native = partial(Batch, told=told, seconds=seconds)
    vec = make_vec(gym.make, single, 8, name="gym", native=native, trial=4, workers=1)
    assert type(vec).__name__ == kind and vec.episodes.tolist() == [-1] * 8
    assert told == [4] + [8] * (kind == "Batch")


def test_auto_does_not_try_what_it_need_not():
    told, made = [], []

    def make(task, **options):
        made.append(task)
        return gym.make(task)

    native = partial(Batch, told=told, seconds=0.02)
    for count, trial in ((8, 0), (1, 64)):
        vec = make_vec(make, Lights, count, name="gym", native=native, trial=trial)
        assert type(vec) is Batch
    assert (told, made) == ([8, 1], [])
    assert type(make_vec(make, Lights, 1, name="gym")) is SyncVec and len(made) == 1


@pytest.mark.parametrize(
    ("task", "options", "text"),
    [
        (Lights, {"mode": "asynk"}, r"mode='asynk' is not one of .*Did you mean 'async'"),
        (Lights, {"num_envs": 0}, "num_envs must be at least 1, got 0"),
        (Lights, {"mode": "native"}, "gym/Lights has no native vectorisation"),
        (Lights(), {"num_envs": 2}, "One environment object is one environment"),
        (Lights, {"mode": "async", "timeout": 0}, "timeout and workers must be positive"),
    ],
)
def test_what_cannot_be_vectorised_says_why(task, options, text):
    with pytest.raises(EnvError, match=text):
        gym.make_vec(task, **options)

"""What every step gives is checked against the environment's own spaces, key by key."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs import wrappers
from worldflux_envs.boundary.faults import EnvFault
from worldflux_envs.boundary.finite import all_finite
from worldflux_envs.boundary.observations import canonical_observation
from worldflux_envs.stack import contract_env

LINE = spaces.Box(-1e30, 1e30, (3,), np.float32)
PICTURE = spaces.Box(0, 255, (16, 16, 3), np.uint8)


class Answers(gymnasium.Env):
    """Gives what it is told to: an observation and a reward at step 2, a whole answer instead."""

    action_space = spaces.Discrete(2)

    def __init__(self, space=LINE, obs=None, reward=0.0, answer=None, begin=None):
        self.observation_space, self.good = space, space.sample()
        self.obs, self.reward, self.answer, self.begin = obs, reward, answer, begin

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return (self.good, {}) if self.begin is None else self.begin

    def step(self, action):
        self.count += 1
        if self.count < 2:
            return self.good, 0.0, False, False, {}
        if self.answer is not None:
            return self.answer
        return (self.good if self.obs is None else self.obs()), self.reward, False, False, {}


def second_step(**options):
    env = contract_env(Answers(**options))
    env.reset(seed=0)
    env.step(0)
    return env.step(0)


def zeros(shape, dtype=np.float32, value=0):
    return lambda: np.full(shape, value, dtype)


@pytest.mark.parametrize(
    ("space", "obs", "text"),
    [
        (
            LINE,
            zeros((1,)),
            r"'state' is float32 of shape \(1,\), expected float32 of shape \(3,\)",
        ),
        (LINE, zeros(()), r"'state' is float32 of shape \(\), expected float32 of shape \(3,\)"),
        (LINE, lambda: 0.5, r"'state' is float 0\.5, expected float32 of shape \(3,\)"),
        (LINE, lambda: [[1], [1, 2]], r"'state' is .*, expected float32 of shape \(3,\)"),
        (LINE, lambda: "abc", r"'state' is a str, expected float32"),
        (LINE, zeros((3,), complex), r"'state' is complex128 of shape"),
        (spaces.Box(0, 9, (2,), np.int64), zeros((2,)), r"is float32 .*, expected int64 of shape"),
        (spaces.Dict({"a": LINE}), lambda: {"b": 1}, r"observation 'a' is missing, .* gave 'b'"),
        (spaces.Dict({"a": LINE}), zeros((3,)), r"observation 'a' is missing, .* gave ndarray"),
        (
            spaces.Discrete(3, start=2),
            lambda: 5,
            r"'state' is int 5, expected an index of Discrete",
        ),
        (
            spaces.Discrete(3, start=2),
            lambda: 1,
            r"'state' is int 1, expected an index of Discrete",
        ),
        (
            spaces.Discrete(3),
            zeros((1,), int),
            r"'state' is int64 of shape \(1,\), expected an ind",
        ),
        (spaces.Discrete(3), lambda: 1.0, r"'state' is float 1.0, expected an index"),
        (spaces.MultiDiscrete([2, 3]), lambda: np.array([2, 0]), r"expected indices of MultiDiscr"),
        (spaces.MultiDiscrete([2, 3]), lambda: np.array([-1, 0]), r"expected indices of MultiDisc"),
        (
            spaces.MultiBinary(2),
            lambda: np.array([2, 0]),
            r"expected zeros and ones of shape \(2,\)",
        ),
        (
            PICTURE,
            zeros((16, 16, 3), float, 0.5),
            r"'image' is float64 .*, expected uint8 of shape",
        ),
        (
            PICTURE,
            zeros((16, 16, 3), int, 300),
            r"'image' has a value of 300, expected uint8 from 0",
        ),
        (PICTURE, zeros((16, 16, 3), int, -1), r"'image' has a value of -1, expected uint8 from 0"),
        (
            PICTURE,
            zeros((3, 16, 16), np.uint8),
            r"'image' is uint8 of shape \(3, 16, 16\), expected",
        ),
    ],
)
def test_an_observation_that_does_not_fit_its_space_is_named(space, obs, text):
    with pytest.raises(EnvFault, match=text) as found:
        second_step(space=space, obs=obs)
    assert str(found.value).startswith("Answers, step 2: observation ")


def test_none_is_refused():
    with pytest.raises(EnvFault, match="Answers, step 2: observation 'state' is None, expected"):
        second_step(answer=(None, 0.0, False, False, {}))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_observation_that_is_not_finite_stops(dtype, value):
    with pytest.raises(
        EnvFault, match=rf"step 2: observation 'state'\[0\] is {value}, expected a f"
    ):
        second_step(obs=zeros((3,), dtype, value))


def test_a_value_that_only_overflows_float32_stops():
    space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    with pytest.raises(EnvFault, match=r"observation 'state'\[0\] is 1e\+39, expected a finite f"):
        second_step(space=space, obs=zeros((3,), np.float64, 1e39))
    assert second_step(space=space, obs=zeros((3,), np.float64, 3e38))[0]["state"][0] == np.float32(
        3e38
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_finite_is_exact_for_every_kind_of_float(dtype):
    fine = np.array([1.0, -2.0, 0.0], dtype)
    assert all_finite(fine) and all_finite(np.zeros((2, 0), dtype))
    assert all_finite(np.array([3e38, 3e38]).astype(np.float32))
    for bad in (np.nan, np.inf, -np.inf):
        fine[1] = bad
        assert not all_finite(fine) and not all_finite(np.stack([fine, fine]))


@pytest.mark.parametrize(
    ("reward", "text"),
    [
        (float("nan"), "reward is nan, expected a finite float32"),
        (np.float32("inf"), "reward is inf, expected a finite float32"),
        (1e39, r"reward is 1e\+39, expected a finite float32"),
        (10**39, r"reward is 1e\+39, expected a finite float32"),
        (10**400, "reward is inf, expected a finite float32"),
        (np.ones(1), r"reward is float64 of shape \(1,\), expected a number"),
        (None, "reward is None, expected a number"),
        ("1", "reward is a str, expected a number"),
    ],
)
@pytest.mark.parametrize("repeat", [1, 2])
def test_a_reward_that_is_no_finite_number_stops(reward, text, repeat):
    env = contract_env(Answers(reward=reward), action_repeat=repeat)
    env.reset(seed=0)
    with pytest.raises(EnvFault, match=rf"^Answers, step {3 - repeat}: {text}"):
        for _ in range(2):
            env.step(0)


@pytest.mark.parametrize("reward", [1, True, np.float32(1), np.int64(1), np.array(1.0)])
def test_a_reward_is_any_number(reward):
    found = second_step(reward=reward)[1]
    assert found == 1.0 and type(found) is float


GOOD = LINE.sample()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"answer": (GOOD, 0.0, False, {})}, r"step 2: step gave 4 values, expected 5.*old Gym"),
        ({"answer": GOOD}, "step 2: step gave 1 values, expected 5"),
        ({"answer": (GOOD, 0.0, False, False, None)}, "step 2: info is None, expected a dict"),
        (
            {"answer": (GOOD, 0.0, None, False, {})},
            "step 2: terminated is None, expected True or F",
        ),
        ({"answer": (GOOD, 0.0, False, 2, {})}, "step 2: truncated is int 2, expected True or Fal"),
        ({"begin": GOOD}, "at the reset: reset gave an observation without info"),
        ({"begin": (GOOD, None)}, "at the reset: reset gave an observation without info"),
        ({"begin": (GOOD * np.nan, {})}, r"at the reset: observation 'state'\[0\] is nan"),
    ],
)
def test_answers_that_are_not_gymnasiums_say_so(options, text):
    with pytest.raises(EnvFault, match=text):
        second_step(**options)


def test_the_old_step_is_found_under_gymnasiums_own_wrappers():
    env = contract_env(Answers(answer=(GOOD, 0.0, False, {})), max_episode_steps=5)
    env.reset()
    env.step(0)
    with pytest.raises(EnvFault, match=r"step 2: step did not give 5 values, .*old Gym"):
        env.step(0)


def test_an_error_of_the_environments_own_stays_its_own():
    class Torn(Answers):
        def step(self, action):
            one, two = (1,)  # not enough values to unpack
            return one, two

    env = contract_env(Torn(), max_episode_steps=5)
    env.reset()
    with pytest.raises(ValueError, match="to unpack"):
        env.step(0)


@pytest.mark.parametrize("flag", [1, np.True_, np.int64(1)])
def test_ends_are_plain_booleans(flag):
    assert second_step(answer=(GOOD, 0.0, flag, False, {}))[2] is True


@pytest.mark.parametrize(
    "make",
    [
        lambda: canonical_observation(spaces.Box(0, 1, (0,))),
        lambda: canonical_observation(spaces.Dict({"state": spaces.Box(0, 1, (2, 0))})),
    ],
)
def test_an_observation_without_numbers_is_refused(make):
    with pytest.raises(EnvError, match="Observation 'state' has no numbers: its space is Box"):
        make()


@pytest.mark.parametrize("key", ["reward", "continue", "value"])
def test_names_of_predictions_are_no_observations(key):
    env = Answers(spaces.Dict({key: LINE, "other": LINE}))
    with pytest.raises(
        EnvError, match=rf"'{key}' has the name of a prediction.*rename=.*last_{key}"
    ):
        contract_env(env)
    renamed = contract_env(env, rename={key: f"last_{key}"})
    obs, _ = renamed.reset(seed=0)
    assert set(obs) == set(renamed.observation_space.spaces) == {f"last_{key}", "other"}
    assert np.array_equal(obs[f"last_{key}"], env.good[key])
    with pytest.raises(EnvError, match="`key`"):
        wrappers.RewardObs(renamed, key=key)
    with pytest.raises(EnvError, match="`key`"):
        wrappers.ObsDict(Answers(), key=key)


def test_only_what_is_there_can_be_renamed():
    with pytest.raises(
        EnvError, match="rename: there is no observation 'stat'. Did you mean 'state'"
    ):
        contract_env(Answers(), rename={"stat": "x"})
    with pytest.raises(EnvError, match="share one key"):
        contract_env(Answers(spaces.Dict({"a": LINE, "b": LINE})), rename={"a": "b"})


def test_the_size_of_images_needs_images():
    with pytest.raises(EnvError, match=r"size=64 is the size of images, .* add obs='pixels'"):
        contract_env(Answers(), size=64)

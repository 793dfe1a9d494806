"""What goes wrong in an environment stops a run with one sentence, whichever vector it is in."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs.backends import gym
from worldflux_envs.boundary.faults import EnvFault
from worldflux_envs.vector.base import EpisodicVectorEnv
from worldflux_envs.vector.buffers import plain

MODES = ("sync", "async")


class Wrong(gymnasium.Env):
    """Goes wrong where `where` says."""

    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Discrete(2)})
    action_space = spaces.Discrete(2)

    def __init__(self, where: str = "") -> None:
        self.where = where
        if where == "init":
            raise ZeroDivisionError("no simulator\nwith more lines")
        if where == "exit":
            sys.exit(3)
        if where == "empty":
            self.observation_space = spaces.Box(0, 1, (0,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.where == "reset":
            raise KeyError("level 7")
        obs = {"a": np.zeros(3, np.float32), "b": 0}
        return obs if self.where == "info" else (obs, {})

    def step(self, action):
        obs, reward = {"a": np.zeros(3, np.float32), "b": 0}, 0.0
        match self.where:
            case "four":
                return obs, reward, False, {}
            case "reward":
                reward = np.ones(1)
            case "key":
                del obs["b"]
            case "shape":
                obs["a"] = np.zeros(1, np.float32)
            case "nan":
                obs["a"][2] = np.nan
            case "step":
                raise ValueError("stuck")
            case "quit":
                raise SystemExit("the simulator wants to quit")
        return obs, reward, False, False, {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("where", "text"),
    [
        (
            "init",
            r"^gym/Wrong cannot be started: ZeroDivisionError: no simulator \(.*, line \d+\)\.$",
        ),
        ("exit", r"^gym/Wrong cannot be started: SystemExit: 3 \(.*, line \d+\)\.$"),
        ("reset", r"^gym/Wrong cannot be started: KeyError: 'level 7' \(.*, line \d+\)\.$"),
        ("info", r"^Wrong, at the reset: reset gave an observation without info, expected .*\.$"),
        ("empty", r"^Observation 'state' has no numbers: its space is .*\. Leave it out\.$"),
    ],
)
def test_an_environment_that_cannot_start_is_told_in_one_sentence(mode, where, text):
    with pytest.raises(EnvError, match=text):
        gym.make_vec(Wrong, 2, mode=mode, where=where)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("four", "step gave 4 values, expected 5"),
        ("reward", r"reward is float64 of shape \(1,\), expected a number"),
        ("key", "observation 'b' is missing, the environment gave 'a'"),
        ("shape", r"observation 'a' is float32 of shape \(1,\), expected float32 of shape \(3,\)"),
        ("nan", r"observation 'a'\[2\] is nan, expected a finite float32"),
    ],
)
def test_a_fault_against_the_spaces_stops_at_once(mode, where, text, caplog):
    vec = gym.make_vec(Wrong, 2, mode=mode, where=where)
    try:
        vec.reset(seed=3)
        expected = (
            rf"^Environment 0 of gym/Wrong failed in episode 0 \(seed 3\): Wrong, step 1: {text}"
        )
        with pytest.raises(EnvFault, match=expected) as found:
            vec.step([0, 0])
        assert "\n" not in str(found.value) and "restarted" not in caplog.text
    finally:
        vec.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("where", "text"),
    [("step", "ValueError: stuck"), ("quit", "SystemExit: the simulator wants to quit")],
)
def test_what_is_raised_three_times_stops_in_one_sentence(mode, where, text, caplog):
    vec = gym.make_vec(Wrong, 1, mode=mode, where=where)
    try:
        vec.reset(seed=0)
        vec.step([0])
        vec.step([0])
        with pytest.raises(
            EnvError, match=rf"{text} \(.*, line \d+\)\. That was failure 3"
        ) as found:
            vec.step([0])
        assert "\n" not in str(found.value)
        assert caplog.text.count("Traceback") == 3
    finally:
        vec.close()


class Batch(EpisodicVectorEnv):
    """A simulator that steps its rows by itself, as native ones do; row 1 is what it is told."""

    def __init__(self, key="state"):
        space = spaces.Dict(
            {key: spaces.Box(-1, 1, (3,)), "image": spaces.Box(0, 255, (1, 2, 2), np.uint8)}
        )
        super().__init__(
            2, space, spaces.Box(-1, 1, (1,)), name="native/Batch", metadata={}, render_mode=None
        )
        self.buffers = plain(space, 2)
        self.next = (0.0, 0.0)

    def execute(self, indices, commands):
        reward, value = self.next
        self.buffers["state"][1, 2] = value
        return [(reward if i == 1 else 0.0, False, False, {}) for i in indices]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_native_vectors_are_checked_too(value):
    vec = Batch()
    vec.reset(seed=5)
    actions = np.zeros((2, 1), np.float32)
    vec.step(actions)
    vec.next = (value, 0.0)
    where = r"Environment 1 of native/Batch, episode 0 \(seed 6\), step 2: "
    with pytest.raises(EnvFault, match=where + "reward is .*, expected a finite float32"):
        vec.step(actions)
    vec.next = (0.0, np.float32(value if value != 1e39 else "inf"))
    with pytest.raises(
        EnvFault, match=r"observation 'state'\[2\] is .*, expected a finite float32"
    ):
        vec.step(actions)
    with pytest.raises(EnvFault, match=r"step 0: observation 'state'\[2\] is"):
        vec.reset(seed=5)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_an_action_that_is_not_finite_never_reaches_the_environment(value):
    vec = Batch()
    vec.reset(seed=0)
    with pytest.raises(
        EnvError, match=r"Environment 1 .* step 0: the action\[0\] is .* the agent gave"
    ):
        vec.step(np.array([[0.0], [value]], np.float32))
    assert vec.lengths.tolist() == [0, 0]


def test_native_vectors_name_no_observation_like_a_prediction():
    with pytest.raises(EnvError, match="'reward' has the name of a prediction"):
        Batch("reward")


def test_the_step_of_a_fault_is_right_after_resuming():
    vec, other = Batch(), Batch()
    vec.reset(seed=0)
    for _ in range(4):
        vec.step(np.zeros((2, 1)))
    vec.execute = lambda indices, commands: [(0.0, False, False, {"state": None})] * 2
    state = vec.get_state()
    other.set_state(state)
    assert other.lengths.tolist() == [4, 4]

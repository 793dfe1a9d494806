"""The environment state interface: an episode goes on, bit for bit, from JSON."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from worldflux_envs import resume
from worldflux_envs.backends import gym

DRAWS = pytest.mark.skipif(not find_spec("pygame"), reason="the extra gym is not installed")
PIXELS = {"obs": "both", "size": 16, "frame_stack": 3, "action_repeat": 2}


def through_json(value):
    return json.loads(json.dumps(value))


def walk(env, actions):
    rows = []
    for action in actions:
        rows.append(env.step(action))
        if rows[-1][2] or rows[-1][3]:
            env.reset()
    return rows


def equal(left, right):
    return all(
        all(np.array_equal(a[0][key], b[0][key]) for key in a[0]) and a[1:4] == b[1:4]
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("CartPole-v1", {}),
        pytest.param("CartPole-v1", PIXELS, marks=DRAWS),
        ("Pendulum-v1", {"max_episode_steps": 40}),
        ("Acrobot-v1", {}),
        ("MountainCarContinuous-v0", {}),
        ("FrozenLake-v1", {}),
        ("Taxi-v4", {}),
        ("Blackjack-v1", {}),
        ("CliffWalking-v1", {"is_slippery": True}),
    ],
)
def test_an_episode_continues_from_its_state(task, options):
    env, other = gym.make(task, **options), gym.make(task, **options)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(60)]
    env.reset(seed=7)
    walk(env, actions[:3])
    state = through_json(env.get_state())
    before = walk(env, actions[3:])
    other.reset(seed=1)
    other.set_state(state)
    assert equal(before, walk(other, actions[3:]))


def test_an_environment_that_cannot_say_its_state_gives_none():
    import gymnasium

    class Opaque(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 1, (1,))
        action_space = gymnasium.spaces.Discrete(2)

    assert gym.make(Opaque()).get_state() is None

    class Strange(gymnasium.Wrapper):
        pass

    assert resume.get_state(Strange(gymnasium.make("CartPole-v1"))) is None


def test_values_come_back_as_they_were():
    from collections import deque

    value = {
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "scalar": np.float32(0.1),
        "tuple": (1, [2.5, None], "x"),
        "deque": deque([np.zeros(2)], 4),
    }
    found = resume.unpack(through_json(resume.pack(value)))
    assert np.array_equal(found["array"], value["array"]) and found["array"].dtype == np.int16
    assert found["array"].flags.writeable
    assert found["scalar"] == value["scalar"] and type(found["scalar"]) is np.float32
    assert found["tuple"] == value["tuple"]
    assert found["deque"].maxlen == 4 and np.array_equal(found["deque"][0], np.zeros(2))


def test_a_value_without_json_form_is_named():
    with pytest.raises(TypeError, match=r"A state holds a object, which has no JSON form"):
        resume.pack({"x": object()})

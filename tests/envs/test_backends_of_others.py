"""A backend of another distribution: a plain Gymnasium environment gets the whole contract."""

import os
import subprocess
import sys
import threading
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import worldflux
from worldflux import factory
from worldflux.errors import EnvError
from worldflux.spaces import action_specs
from worldflux.specs import EnvSpec
from worldflux.testing import check_env
from worldflux_envs.any_backend import single, vectorised
from worldflux_envs.backends import gym


class Plain(gymnasium.Env):
    """A float picture and nine actions from 5 to 13; draws itself."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = spaces.Box(0, 1, (20, 24, 3), np.float64)
    action_space = spaces.Box(0, 8, (1,), np.int64)

    def __init__(self, task, end=30, render_mode=None):
        self.task, self.end, self.render_mode = task, end, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.full((20, 24, 3), self.np_random.random()), {}

    def step(self, action):
        assert action in self.action_space
        self.count += 1
        over = self.count >= self.end and bool(self.np_random.random() < 0.5)
        return np.full((20, 24, 3), self.np_random.random()), int(action[0]), over, False, {}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


def _plain_vec(task, num_envs, **options):
    return gymnasium.vector.SyncVectorEnv([lambda: Plain(task)] * num_envs)


class Wide(gymnasium.vector.VectorEnv):
    """The contract's form, but for the upper bound of its actions."""

    def __init__(self, task, num_envs, high=2.0):
        self.single_observation_space = spaces.Dict({"state": spaces.Box(-1, 1, (2,))})
        self.single_action_space = spaces.Box(-1.0, high, (1,), np.float32)


SPEC = EnvSpec("plain", make="unused:make", options={"end": "when it ends"})
make = single(SPEC, "plain/task", Plain)
make_vec = vectorised(SPEC, "plain/task", Plain, None)


def test_a_plain_environment_keeps_the_contract():
    check_env(lambda: make("task"), steps=20)
    env = make(
        "task", end=3, size=16, max_episode_steps=2, action_repeat=2, rename={"image": "eye"}
    )
    assert env.observation_space["eye"].shape == (3, 16, 16)
    obs, _ = env.reset(seed=0)
    assert obs["eye"].dtype == np.uint8
    assert env.step(np.array([1.0]))[1:4] == (16.0, False, False)
    assert env.unwrapped.end == 3


def test_its_vectors_are_ours():
    vec = make_vec("task", 2, seed=4, gray=True, frame_stack=2)
    first = vec.reset()[0]["image"]
    assert first.shape == (2, 2, 20, 24)
    assert np.array_equal(vec.reset(seed=4)[0]["image"], first)
    assert vec.step(np.zeros((2, 1)))[4]["is_first"].tolist() == [False, False]
    assert vec.name == "plain/task"


def test_options_the_backend_names_are_its_own():
    seen = {}

    def own(task, **options):
        seen.update(options)
        return Plain(task)

    named = EnvSpec("plain", make="unused:make", options={"size": "mine"})
    env = single(named, "plain/task", own)("task", size=7, gray=True)
    assert seen == {"size": 7} and env.observation_space["image"].shape == (1, 20, 24)


def test_what_a_backend_cannot_do_is_said():
    with pytest.raises(EnvError, match=r"plain/x cannot be made with \{'ende': 3\}: .*'ende'"):
        single(SPEC, "plain/x", Plain)("x", ende=3)
    with pytest.raises(EnvError, match="plain/x: its backend gave a int, not a gymnasium.Env"):
        single(SPEC, "plain/x", lambda task: 3)("x")
    own = EnvSpec("plain", make="unused:make", make_vec="unused:make_vec")
    with pytest.raises(
        EnvError, match="plain/x: the vectors of this backend do not keep the contr"
    ):
        vectorised(own, "plain/x", Plain, _plain_vec)("x", 2)
    with pytest.raises(EnvError, match=r"plain/x: .* do not keep the contract .*Box\(-1.0, 2.0"):
        vectorised(own, "plain/x", Plain, Wide)("x", 2)
    assert isinstance(vectorised(own, "plain/x", Plain, Wide)("x", 2, high=1.0), Wide)


def test_its_options_are_those_of_every_backend(monkeypatch):
    monkeypatch.setattr(factory.envs, "get", lambda *_: SPEC)
    spec = worldflux.factory.get_env_spec("plain/task")
    assert spec.options["end"] == "when it ends" and "max_episode_steps" in spec.options
    assert {"mode", "workers"} <= set(spec.vector) and "..." not in spec.options
    bare = EnvSpec("plain", make="unused:make")
    monkeypatch.setattr(factory.envs, "get", lambda *_: bare)
    assert "..." in worldflux.factory.get_env_spec("plain/task").options


@pytest.mark.parametrize(
    ("env_id", "effect"),
    [
        ("gym/CartPole-v1", None),
        ("gym/module.of:Env", "imports the module 'module.of' and makes its 'Env'"),
        ("robotics/module:Env", "imports the module 'module' and makes its 'Env'"),
        ("dmc/walker-walk", None),
        ("dmc/os:system", "imports the module 'os' and makes its 'system'"),
        ("unity/editor", None),
        ("unity/./Game.x86_64", "starts the program ./Game.x86_64"),
        ("mlagents/C:/Game.exe", "starts the program C:/Game.exe"),
        ("mujoco/C:/model.xml", None),
        ("wm/C:/runs/one", None),
        ("atari/Pong", None),
    ],
)
def test_ids_that_run_code_say_so(env_id, effect):
    assert factory.env_runs_code(env_id) == effect


class Named(Plain):
    action_space = spaces.Discrete(3, start=1)

    def get_action_meanings(self):
        return ["NOOP", "FIRE", "UP"]


class Misnamed(Named):
    def get_action_meanings(self):
        return ["NOOP"]


@pytest.mark.parametrize(
    ("env", "labels"),
    [
        (lambda: single(SPEC, "plain/x", Named)("x"), ("NOOP", "FIRE", "UP")),
        (lambda: single(SPEC, "plain/x", Misnamed)("x"), None),
        (lambda: worldflux.make_env("wf/catch"), ("left", "stay", "right")),
        (lambda: worldflux.make_env("wf/sprites"), ("stay", "left", "right", "jump")),
        (lambda: worldflux.make_vec_env("wf/cartpole", 2, mode="native"), ("left", "right")),
        (lambda: worldflux.make_vec_env("wf/cartpole", 2, mode="sync"), ("left", "right")),
        (lambda: worldflux.make_env("gym/CartPole-v1"), None),
    ],
)
def test_choices_have_names_where_the_environment_tells_them(env, labels):
    made = env()
    space = getattr(made, "single_action_space", made.action_space)
    assert action_specs(space)["action"].labels == labels


class Limited(Plain):
    """Its own time limit, told as an end."""

    def step(self, action):
        obs, reward, _, _, info = super().step(action)
        return obs, reward, self.count >= self.end, False, info


def test_a_time_limit_told_as_an_end_is_refused():
    limited = single(SPEC, "plain/x", Limited)
    with pytest.raises(
        AssertionError, match="check_time_limit: 5 episodes .* terminated after 30 st"
    ):
        check_env(lambda: limited("x"), steps=10)
    assert "check_time_limit" in check_env(lambda: limited("x", max_episode_steps=20), steps=10)
    assert "check_time_limit" in check_env(lambda: make("x"), steps=10)
    assert "check_time_limit" not in check_env(lambda: limited("x"), steps=10, fixed_length=True)
    assert "check_time_limit" in check_env(lambda: limited("x", end=100), steps=10, limit=300)


SCRIPT = """
import logging, sys, time
import gymnasium, numpy as np
from worldflux_envs.backends import gym

class Slow(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}
    def step(self, action):
        time.sleep(0.005)
        return np.zeros(1, np.float32), 1.0, False, False, {}

gymnasium.register("Mine-v0", entry_point=ENTRY)
logging.basicConfig(level=logging.WARNING)
vec = gym.make_vec("Mine-v0", 8, workers=4)
vec.reset(seed=0)
print(type(vec).__name__, vec.step(np.zeros(8, int))[1].sum())
vec.close()
"""


@pytest.mark.parametrize("entry", ["Slow", "'__main__:Slow'", "lambda **options: Slow(**options)"])
def test_an_id_registered_in_the_script_alone_reaches_the_workers(entry, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.replace("ENTRY", entry))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["AsyncVec", "8.0"], done.stderr


class Slow(Plain):
    """Too slow for one process, and of no use in another."""

    def __init__(self, lock, owner):
        super().__init__("x")
        self.lock = lock
        if owner != os.getpid():
            raise RuntimeError("only in the process that made me")

    def step(self, action):
        time.sleep(0.005)
        return super().step(action)


@pytest.mark.parametrize("picklable", [True, False])
def test_auto_stays_in_this_process_where_workers_cannot_make_it(picklable, caplog):
    lock = None if picklable else threading.Lock()
    vec = gym.make_vec(Slow, 8, workers=4, lock=lock, owner=os.getpid())
    try:
        assert type(vec).__name__ == "SyncVec"
        reason = (
            "RuntimeError: only in the process"
            if picklable
            else "what makes it cannot be sent to a worker process: TypeError: cannot pickle"
        )
        told = "gym/Slow: worker processes would be faster, but cannot make it: "
        assert told + reason in caplog.text
        assert vec.reset(seed=0)[0]["image"].shape == (8, 3, 20, 24)
    finally:
        vec.close()


def test_asked_for_processes_that_cannot_be_are_refused_in_one_sentence():
    with pytest.raises(EnvError, match="cannot be sent to a worker process: TypeError: cannot pi"):
        gym.make_vec(Slow, 2, mode="async", lock=threading.Lock(), owner=os.getpid())

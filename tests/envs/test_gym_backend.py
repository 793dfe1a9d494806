"""Backend gym: ids, entry points, callables and objects behind the contract."""

import sys
import warnings
from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from worldflux.errors import EnvError
from worldflux_envs.backends import gym

DRAWS = pytest.mark.skipif(not find_spec("pygame"), reason="the extra gym is not installed")
IMAGE = {"image": (3, 64, 64)}
BOTH = {"state": (4,), "image": (3, 32, 48)}
STACK = {"obs": "pixels", "gray": True, "frame_stack": 3}


class Counter(gymnasium.Env):
    """Counts its steps; terminates at `end`; draws its count."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, end: int = 5, render_mode: str | None = None) -> None:
        self.end, self.render_mode, self.count = end, render_mode, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.array([self.count], np.float32), 1, self.count >= self.end, False, {}

    def render(self):
        return np.full((12, 16, 3), self.count, np.uint8)


def not_an_env():
    return 3


@pytest.mark.parametrize(
    ("task", "options", "keys"),
    [
        ("CartPole-v1", {}, {"state": (4,)}),
        pytest.param("Pendulum-v1", {"obs": "pixels"}, IMAGE, marks=DRAWS),
        pytest.param("CartPole-v1", {"obs": "both", "size": (32, 48)}, BOTH, marks=DRAWS),
        pytest.param("MountainCar-v0", STACK, IMAGE, marks=DRAWS),
        ("FrozenLake-v1", {}, {"state": (16,)}),
        ("Acrobot-v1", {"action_repeat": 2}, {"state": (6,)}),
    ],
)  # fmt: skip
def test_environments_pass_gymnasiums_checker(task, options, keys):
    env = gym.make(task, **options)
    assert {key: part.shape for key, part in env.observation_space.spaces.items()} == keys
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A rendering wrapper fixes the render mode, so the checker may not try the others.
        check_env(env, skip_render_check="obs" in options or not find_spec("pygame"))


def test_images_are_the_rendered_picture():
    env = gym.make(Counter, obs="pixels", size=4)
    obs, _ = env.reset()
    assert set(obs) == {"image"} and not obs["image"].any()
    for _ in range(3):
        obs, *_ = env.step(0)
    assert obs["image"].shape == (3, 4, 4) and (obs["image"] == 3).all()


def test_a_time_limit_truncates_and_an_end_terminates():
    env = gym.make(Counter, end=3, max_episode_steps=2)
    env.reset()
    env.step(0)
    assert env.step(0)[2:4] == (False, True)
    env = gym.make(Counter, end=2)
    env.reset()
    env.step(0)
    assert env.step(0)[2:4] == (True, False)


def test_the_limit_of_an_id_is_replaced_and_counts_the_agents_steps():
    env = gym.make("MountainCar-v0", max_episode_steps=3, action_repeat=2)
    env.reset(seed=0)
    assert [env.step(1)[3] for _ in range(3)] == [False, False, True]
    env = gym.make("MountainCar-v0", max_episode_steps=250)
    env.reset(seed=0)
    assert not any(env.step(1)[3] for _ in range(249))


def test_ids_entry_points_callables_and_objects():
    assert gym.make("gymnasium:CartPole-v1").unwrapped.spec.id == "CartPole-v1"
    module = "gymnasium.envs.classic_control.cartpole"
    assert type(gym.make(f"{module}:CartPoleEnv").unwrapped).__name__ == "CartPoleEnv"
    assert gym.make(Counter, end=7).unwrapped.end == 7
    raw = Counter()
    assert gym.make(raw).unwrapped is raw


def test_an_id_calls_nothing_but_an_environment_class(tmp_path):
    mark = tmp_path / "called"
    with pytest.raises(EnvError, match=r"gym/os:system is a builtin\w+, not a subclass"):
        gym.make("os:system", command=f"touch {mark}")
    with pytest.raises(EnvError, match="not a subclass of gymnasium.Env, and was not called"):
        gym.make("subprocess:Popen", args=["touch", str(mark)])
    assert not mark.exists()


def test_seeds_decide_the_episode():
    first, again, other = (gym.make("CartPole-v1").reset(seed=s)[0]["state"] for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    env, same = gym.make("CartPole-v1", seed=5), gym.make("CartPole-v1", seed=5)
    assert np.array_equal(env.reset()[0]["state"], same.reset()[0]["state"])


def test_tasks_are_ids_that_can_be_made():
    names = gym.tasks()
    assert {"CartPole-v1", "Pendulum-v1", "Taxi-v4"} <= set(names)
    assert not any("/" in name for name in names)


@pytest.mark.parametrize(
    ("task", "options", "text"),
    [
        ("CartPol-v1", {}, r"gym/CartPol-v1 cannot be made with .*CartPole"),
        ("CartPole-v1", {"gravity": 3}, r"gym/CartPole-v1 cannot be made with .*gravity"),
        ("CartPole-v1", {"obs": "pixel"}, r"obs='pixel' is not one of .*Did you mean 'pixels'"),
        ("no_such_module:Env", {}, r"gym/no_such_module:Env: no module 'no_such_module'"),
        (not_an_env, {}, r"gave a int, not a gymnasium.Env"),
        (Counter(), {"end": 3}, r"made already; it takes no \['end'\]"),
        (Counter(), {"obs": "pixels"}, r"made with render_mode='rgb_array', not None"),
    ],
)
def test_what_cannot_be_made_says_why(task, options, text):
    with pytest.raises(EnvError, match=text):
        gym.make(task, **options)


def test_a_missing_package_gives_the_install_line():
    gymnasium.register("NeedsMore-v0", entry_point=_needs_more)
    try:
        with pytest.raises(EnvError, match=r'pip install "worldflux-envs\[gym\]"'):
            gym.make("NeedsMore-v0")
    finally:
        del gymnasium.registry["NeedsMore-v0"]


def _needs_more():
    raise gymnasium.error.DependencyNotInstalled("simulator is not installed")


def test_the_plugin_module_imports_nothing_heavy():
    import subprocess

    code = (
        "import sys, worldflux_envs.backends.gym as g; list(g.worldflux_envs());"
        "sys.exit(any(m in sys.modules for m in ('gymnasium', 'numpy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

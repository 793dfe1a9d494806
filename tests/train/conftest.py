"""A real installed family (`tiny`) and environments that cannot be saved in mid-episode."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from worldflux.atomic import read_json
from worldflux.plugins import plugins
from worldflux.runs import Run
from worldflux_train.config import RunConfig, resolve

PLUGIN = """
from worldflux.hookspecs import hookimpl
from worldflux.specs import EnvSpec, ModelSpec
from worldflux.testing.clips import ClipConfig
from worldflux.testing.dummies import TinyConfig

class LimitedConfig(TinyConfig):
    limit: int | None = None
    "Steps of an episode; None: the environment's."

    def completed(self, columns, episode_limit=None):
        return self if self.limit is not None else self.with_(limit=episode_limit)

@hookimpl
def worldflux_models():
    return [
        ModelSpec(
            family="tiny", config=TinyConfig,
            presets={"small": TinyConfig(width=8), "wide": TinyConfig(width=32)},
            default_preset="small", model="worldflux.testing.dummies:TinyModel",
            agent="worldflux.testing.dummies:TinyAgent",
        ),
        ModelSpec(
            family="clips", config=ClipConfig, presets={"small": ClipConfig()},
            default_preset="small", model="worldflux.testing.clips:ClipModel",
            agent="worldflux.testing.clips:ClipLearner", defaults={"*": {"train.log_every": 40}},
        ),
        ModelSpec(
            family="limited", config=LimitedConfig, presets={"small": LimitedConfig(width=8)},
            default_preset="small", model="worldflux.testing.dummies:TinyModel",
            agent="worldflux.testing.dummies:TinyAgent",
        ),
    ]
"""
PLUGIN += """
@hookimpl
def worldflux_envs():
    return [EnvSpec(backend="walk", make="walk_env:make", make_vec="walk_env:make_vec",
                    options={"noise": "its size"})]
"""
ENV = """
import random
import time

import gymnasium
import numpy as np

class Walk(gymnasium.Env):
    '''Ends after 5 to 12 steps; noise from its own generator. It has no state interface.'''

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.place = int(self.np_random.integers(5, 13)), np.zeros(3)
        return self.place.astype(np.float32), {}

    def step(self, action):
        self.left -= 1
        self.place = self.place + self.np_random.normal(size=3) + (2 * action - 1)
        return self.place.astype(np.float32), float(action), self.left == 0, False, {}

class Sleepy(Walk):
    '''As Walk, but every step takes another time.'''

    def step(self, action):
        time.sleep(random.SystemRandom().uniform(0, 2e-3))
        return super().step(action)

class Endless(Walk):
    '''As Walk, but no episode ends.'''

    def step(self, action):
        obs, reward, _, _, info = super().step(action)
        return obs, reward, False, False, info

def make(task, noise=1.0):
    return Contract(Walk())

def make_vec(task, num_envs, **options):
    mode = gymnasium.vector.AutoresetMode.NEXT_STEP
    makes = [lambda: make(task, **options)] * num_envs
    return gymnasium.vector.SyncVectorEnv(makes, autoreset_mode=mode)

class Contract(gymnasium.ObservationWrapper):
    '''The observation under "state", as the environment contract has it.'''

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Dict({"state": env.observation_space})

    def observation(self, observation):
        return {"state": observation}

class Drifting(Walk):
    '''As Walk, but not even the same seed and actions bring it to the same place again.'''

    started = 0

    def reset(self, *, seed=None, options=None):
        Drifting.started += 1
        obs, info = super().reset(seed=seed)
        self.place += 1e-3 * Drifting.started
        return self.place.astype(np.float32), info
"""


class Site:
    """The folder that holds the fake distribution, and processes that see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        info = folder / "worldflux_tiny-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "tiny_plugin.py").write_text(dedent(PLUGIN))
        (folder / "walk_env.py").write_text(dedent(ENV))
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: worldflux-tiny\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(
            "[worldflux.models]\ntiny = tiny_plugin\nclips = tiny_plugin\n"
            "limited = tiny_plugin\n"
            "[worldflux.envs]\nwalk = tiny_plugin\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a process that sees the distribution."""
        return {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}

    def command(self, *arguments: object) -> list[str]:
        """The `worldflux` command as an argument list."""
        code = "from worldflux.cli import main; main()"
        return [sys.executable, "-c", code, *map(str, arguments)]

    def cli(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the `worldflux` command to its end."""
        return subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("site"))
    sys.path.insert(0, str(found.folder))
    plugins.cache_clear()
    yield found
    sys.path.remove(str(found.folder))
    plugins.cache_clear()


@pytest.fixture(autouse=True)
def own_rng() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


SHORT: dict[str, Any] = {
    "train.steps": 120,
    "train.eval_every": 60,
    "train.eval_episodes": 3,
    "train.log_every": 20,
    "train.checkpoint_every": 40,
    "train.replay_capacity": 1000,
    "train.threads": 1,
    "train.device": "cpu",
}


@pytest.fixture
def tiny(site: Site) -> Any:
    """`tiny(env="gym/CartPole-v1", **overrides)`: a short run's configuration."""

    def make(env: str = "gym/CartPole-v1", overrides: Mapping[str, Any] | None = None) -> RunConfig:
        return resolve("tiny", env, overrides={**SHORT, **(overrides or {})})

    return make


@pytest.fixture
def assert_same_run() -> Any:
    """Weights, optimisers, replay, generators, counters, running episodes and metrics agree."""
    return _assert_same_run


@pytest.fixture
def untimed() -> Any:
    """The metrics without timings and without evaluations that only an end calls for."""
    return _untimed


def _untimed(run: Run) -> list[dict[str, Any]]:
    """The metrics without timings and without evaluations that only an end calls for."""
    rows = [row for row in run.metrics() if not row.get("final")]
    return [
        {k: v for k, v in row.items() if not k.startswith(("time/", "memory/"))} for row in rows
    ]


def _assert_same_run(one: Path, other: Path, step: int) -> None:
    """Weights, optimisers, replay, generators, counters, running episodes and metrics agree."""
    first, second = Run.open(one), Run.open(other)
    left, right = (run.checkpoint_path(step) for run in (first, second))
    names = sorted(file.relative_to(left).as_posix() for file in left.rglob("*.safetensors"))
    assert len(names) >= 6, names  # weights, optimisers, updater, meters, collector, replay
    assert names == sorted(
        file.relative_to(right).as_posix() for file in right.rglob("*.safetensors")
    )
    for name in names:
        _assert_same_tensors(left / name, right / name)
    for name in ("clock", "schedule", "meters", "collector", "environments", "source/replay"):
        values = [read_json(folder / f"{name}.json") for folder in (left, right)]
        assert [value.pop("seconds", 1) > 0 for value in values] == [True, True]
        assert values[0] == values[1], name
    assert _untimed(first) == _untimed(second)


def _assert_same_tensors(left: Path, right: Path) -> None:
    one, other = load_file(left), load_file(right)
    assert one.keys() == other.keys()
    for key, tensor in one.items():
        assert torch.equal(tensor, other[key]), (left.name, key)

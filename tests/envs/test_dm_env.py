"""Environments of the dm_env interface, and tasks of one's own in MuJoCo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from worldflux.errors import ConfigError, EnvError
from worldflux.testing import check_env
from worldflux_envs.dm_any import AnyDmEnv, as_gymnasium
from worldflux_envs.stack import contract_env

dm_env = pytest.importorskip("dm_env", reason="an extra that brings dm_env is not installed")
from dm_env import specs  # noqa: E402


class Walk(dm_env.Environment):  # type: ignore[misc]
    """Two observations by key; ends by itself at a wall, by a limit elsewhere."""

    def __init__(self) -> None:
        self._rng = np.random.RandomState(0)

    def reset(self) -> Any:
        self.place, self.t = self._rng.uniform(), 0
        return dm_env.restart(self._seen())

    def step(self, action: Any) -> Any:
        self.place, self.t = self.place + float(action[0]), self.t + 1
        if abs(self.place) > 2:
            return dm_env.termination(reward=-1.0, observation=self._seen())
        if self.t == 5:
            return dm_env.truncation(reward=None, observation=self._seen())
        return dm_env.transition(reward=np.array([0.5, 0.5]), observation=self._seen())

    def observation_spec(self) -> Any:
        return {"place": specs.Array((), np.float64), "view": specs.Array((4, 4, 3), np.uint8)}

    def action_spec(self) -> Any:
        return specs.BoundedArray((1,), np.float32, -1, 1)

    def _seen(self) -> Any:
        return {"place": self.place, "view": np.full((4, 4, 3), self.t, np.uint8)}


def test_any_dm_env_keeps_the_contract() -> None:
    check_env(lambda: contract_env(AnyDmEnv(Walk())))
    env = contract_env(as_gymnasium(Walk()))
    assert env.observation_space["place"].shape == (1,)  # type: ignore[index]
    assert env.observation_space["view"].shape == (3, 4, 4)  # type: ignore[index]
    first, again, other = (env.reset(seed=seed)[0]["place"] for seed in (1, 1, 2))
    assert first == again != other
    env.reset(seed=1)
    found = [env.step(np.zeros(1, np.float32))[1:4] for _ in range(5)]
    assert found[0] == (1.0, False, False) and found[-1] == (0.0, False, True)
    env.reset(seed=1)
    found = [env.step(np.ones(1, np.float32))[1:4] for _ in range(2)]
    assert found[-1] == (-1.0, True, False)


def test_functions_and_names_give_them_too() -> None:
    from worldflux import make_env
    from worldflux_envs.backends.dm_env import make

    assert make_env(Walk).reset(seed=0)[0]["view"].shape == (3, 4, 4)
    assert isinstance(make(Walk()), AnyDmEnv)
    with pytest.raises(EnvError, match=r"names no function: write dm-env/module:function"):
        make("walk")
    with pytest.raises(EnvError, match=r"dm-env/no_such:walk cannot be imported: No module"):
        make("no_such:walk")
    with pytest.raises(EnvError, match=r"gave a int, no dm_env one"):
        make("builtins:int")


def test_bsuite() -> None:
    pytest.importorskip("bsuite", reason="the extra bsuite is not installed")
    from worldflux_envs.backends.bsuite import make, tasks

    assert len(tasks()) == 468
    check_env(lambda: contract_env(make("catch/0")), fixed_length=True)
    env = contract_env(make("cartpole_swingup/3"))
    assert env.action_space == spaces.Discrete(3)
    assert env.reset(seed=0)[0]["state"].shape == (8,)
    noisy = contract_env(make("catch_noise/1"))
    runs = []
    for seed in (1, 1, 2):
        noisy.reset(seed=seed)
        runs.append([noisy.step(0)[1] for _ in range(4)])
    assert runs[0] == runs[1] != runs[2]  # the noise too follows from the seed
    with pytest.raises(EnvError, match="bsuite has no 'catch/99'. Did you mean 'catch/9'"):
        make("catch/99")
    with pytest.raises(EnvError, match="takes no noise: its settings are in its id"):
        make("catch/0", noise=1)


MODEL = """<mujoco><worldbody><body><joint name="j" type="slide" axis="1 0 0"/>
<geom size="0.1" mass="1"/></body></worldbody>
<actuator><motor joint="j" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>"""
TASK = """
def reward(model, data):
    return float(data.qpos[0])

def fallen(model, data):
    return bool(data.qpos[0] > 0.003)

limit = 3
"""


def test_a_mujoco_model_is_a_task_by_functions_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mujoco", reason="the extra mujoco is not installed")
    from worldflux import make_env

    (tmp_path / "my_task.py").write_text(TASK)
    (tmp_path / "slider.xml").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    named: dict[str, Any] = {
        "reward_fn": "my_task:reward", "terminal_fn": "my_task:fallen", "frame_skip": 5,
    }  # fmt: skip
    env = make_env(f"mujoco/{tmp_path}/slider.xml", **named)
    env.reset(seed=0)
    steps = [env.step(np.ones(1, np.float32)) for _ in range(9)]
    rewards, ends = [step[1] for step in steps], [step[2] for step in steps]
    assert rewards == pytest.approx([float(step[0]["state"][0]) for step in steps])
    assert rewards[-1] > 0.003 and ends[-1] and not ends[0]
    for option, text in {
        "my_tsk:reward": r"env.reward_fn='my_tsk:reward' cannot be imported \(No module",
        "my_task:rewrd": r"cannot be imported \(module 'my_task' has no attribute",
        "my_task:limit": r"is a int, not a function",
    }.items():
        with pytest.raises(EnvError, match=text):
            make_env(f"mujoco/{tmp_path}/slider.xml", reward_fn=option)


def test_functions_in_a_runs_configuration_are_kept_by_name(tmp_path: Path) -> None:
    train = pytest.importorskip("worldflux_train")
    from json import dumps  # any function of a module

    config = train.resolve("tdmpc2", "mujoco/slider.xml", overrides={"env.reward_fn": dumps})
    assert config.env_options["reward_fn"] == "json:dumps" and "json:dumps" in config.to_yaml()
    with pytest.raises(ConfigError, match="env.reward_fn is .*, which cannot be imported again"):
        train.resolve("tdmpc2", "mujoco/x.xml", overrides={"env.reward_fn": lambda model, data: 0})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    with pytest.raises(ConfigError, match="env.reward_fn: json:dumps can import that module"):
        train.resolve(config=tmp_path / "config.yaml")

"""Planning in a run's model: starts and goals, success and its interval, time, and the video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from worldflux.cli.app import build_app
from worldflux.errors import CapabilityError
from worldflux.runs import Run
from worldflux.specs import TensorSpec
from worldflux.testing.clips import ClipConfig, ClipLearner
from worldflux.testing.dummies import TinyAgent, TinyConfig
from worldflux_train.api import train
from worldflux_train.config import resolve
from worldflux_train.planning import PlannedEpisode, PlanResult, interval
from worldflux_train.planning.agents import planning_agent
from worldflux_train.planning.picture import GAP, SIDE, planning_frames
from worldflux_train.planning.tasks import begin, goal_picture, succeeded


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 0, 0.0, 1.0), (40, 50, 0.670, 0.888), (50, 50, 0.929, 1.0), (0, 10, 0.0, 0.278)],
)
def test_intervals_are_wilsons(count: int, total: int, low: float, high: float) -> None:
    assert interval(count, total) == pytest.approx((low, high), abs=1e-3)


def episode(success: bool | None, total: float = 1.0, **more: Any) -> PlannedEpisode:
    return PlannedEpisode(success, total, 3, **more)


def test_success_is_of_the_episodes_that_tell() -> None:
    found = PlanResult([episode(True), episode(False), episode(None, 4.0)], 10, 5.0, "CEM")
    assert found.success == 0.5 and found.mean_return == 2.0 and found.seconds_per_plan == 0.5
    assert PlanResult([episode(None)], 0, 0.0, "CEM").success is None


def test_what_tells_of_success() -> None:
    goal = {"goal": np.zeros(3)}
    assert succeeded(goal, {}, 1.0, True) is True
    assert succeeded(goal, {}, 0.0, True) is False and succeeded(goal, {}, 1.0, False) is False
    assert succeeded({}, {}, 1.0, True) is None
    assert succeeded({}, {"is_success": np.array(True)}, 0.0, False) is True


def test_frames_show_start_goal_and_path() -> None:
    frames = [np.full((256, 256, 3), shade, np.uint8) for shade in (0, 100, 200)]
    goal = np.full((32, 32, 3), 50, np.uint8)
    path = [(0.1, 0.1), (0.5, 0.5), (0.9, 0.9)]
    found = planning_frames([episode(True, frames=frames, goal=goal, path=path)])
    assert found is not None and found.shape[2] == 3 * SIDE + 2 * GAP
    last, first = found[-1][-SIDE:], found[0][-SIDE:]
    middle = SIDE // 2
    assert (last[middle, middle] == 0).all(), "the start stays"
    assert (last[middle, SIDE + GAP + middle] == 50).all(), "the goal"
    assert (last[middle, -middle] == (66, 133, 244)).all(), "the path"
    assert (first[middle, -middle] == 0).all(), "no path yet"
    assert planning_frames([episode(True)]) is None


class Line:
    """A point on a line that can be put anywhere and told where to go."""

    def __init__(self) -> None:
        import gymnasium

        self.unwrapped, self.action_space = self, gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.place, self.goal, self.steps = 0.0, 99.0, 0

    def reset(self, *, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        self.place, self.steps = float(seed % 7), 0
        return self.observation(), {}

    def step(self, action: Any) -> None:
        self.place, self.steps = self.place + float(action[0]), self.steps + 1

    def observation(self) -> dict[str, Any]:
        return {"state": np.array([self.place]), "goal": np.array([self.goal])}

    def get_state(self) -> dict[str, Any]:
        return {"place": self.place, "steps": self.steps}

    def set_state(self, state: dict[str, Any]) -> None:
        self.place, self.steps = state["place"], state["steps"]

    def set_goal(self, state: dict[str, Any]) -> None:
        self.goal = state["place"]


def test_a_goal_is_so_many_steps_of_a_random_walk_away() -> None:
    env, starts = Line(), []
    for seed in range(20):
        obs, _ = begin(env, seed, 10)
        starts.append(env.steps)
        assert 0 < abs(float(obs["goal"][0] - obs["state"][0])) <= 10
        again, _ = begin(Line(), seed, 10)
        assert again == obs, "the same seed, the same task"
    assert len(set(starts)) > 3, "starts are anywhere on the walk"
    obs, _ = begin(env, 3, None)
    assert obs["state"][0] == 3.0


def test_an_environment_that_takes_no_goals_is_refused() -> None:
    class Fixed(Line):
        set_goal = property(lambda self: (_ for _ in ()).throw(AttributeError("none")))

    with pytest.raises(CapabilityError, match="Fixed cannot be given a goal: it has no set_goal"):
        begin(Fixed(), 0, 5)


def test_goals_as_pictures() -> None:
    shown = goal_picture({"goal": np.zeros((1, 4, 5), np.uint8)})
    assert shown is not None and shown.shape == (4, 5, 3)
    assert goal_picture({"goal": np.zeros(4)}) is None and goal_picture({}) is None


def test_models_that_cannot_be_planned_in() -> None:
    clips = ClipLearner(ClipConfig(), {"state": TensorSpec((3,))}, {})
    with pytest.raises(CapabilityError, match="ClipModel cannot be planned in"):
        planning_agent(clips, goals=True)


def test_without_rewards_there_must_be_a_goal() -> None:
    tiny = TinyAgent(TinyConfig(), {"state": TensorSpec((3,))}, {"action": TensorSpec((2,))})
    tiny.world_model.capabilities = tiny.world_model.capabilities - {"reward_pred"}
    with pytest.raises(CapabilityError, match="predicts no reward.* Use one with a goal"):
        planning_agent(tiny, goals=False)
    assert planning_agent(tiny, goals=True).plans


def _call(*arguments: Any) -> str:
    result = CliRunner().invoke(build_app(), [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_the_command_plans_and_saves(site: Any, tmp_path: Path) -> None:
    config = resolve("tiny", "walk/x", overrides={"train.steps": 20, "train.eval_episodes": 1})
    train(config, tmp_path / "run")
    said = _call("plan", tmp_path / "run", "--episodes", 3, "--budget", 4)
    assert "return" in said and "ms a plan (CEM)" in said and "success" not in said
    run = Run.open(tmp_path / "run")
    [file] = run.path.glob("plan-*.json")
    numbers = json.loads(file.read_text())
    assert numbers["episodes"] == 3 and numbers["plans"] >= 3 and numbers["success"] is None
    assert not list(run.videos_path.glob("plan-*")), "the environment draws nothing"

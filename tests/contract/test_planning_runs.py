"""Planning toward goals from the command's own function: data, a run, an environment, a video."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from worldflux import create_agent, get_model_spec, list_models
from worldflux.columns import step_columns
from worldflux.core.agent import Learner
from worldflux.episodes import EpisodeWriter
from worldflux.errors import CapabilityError, ConfigError
from worldflux.factory import make_env
from worldflux.planning.config import CEMConfig
from worldflux.spaces import action_specs, observation_specs
from worldflux.specs import Capability, CheckSettings, TensorSpec
from worldflux_train.api import train
from worldflux_train.config import resolve
from worldflux_train.planning import agents, plan_run
from worldflux_train.planning.agents import planning_agent, timed
from worldflux_train.planning.episodes import play

IMAGE, LENGTH = {"image": TensorSpec((3, 32, 32), "uint8", low=0, high=255)}, 30
ENVS: list[tuple[str, dict[str, Any]]] = [
    ("wf/pendulum", {"obs": "state"}),
    ("wf/pendulum", {"obs": "pixels", "size": 64}),
    ("wf/catch", {"obs": "pixels", "size": 64}),
]
QUICK: dict[str, Any] = {
    "train.steps": 2, "train.device": "cpu", "train.threads": 1, "agent.batch": 4,
    "agent.planner.candidates": 8, "agent.planner.elites": 2, "agent.planner.iterations": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("data") / "rooms", np.random.default_rng(0)
    action = TensorSpec((2,), low=-1.0, high=1.0)
    writer, index = EpisodeWriter(folder, step_columns(IMAGE, action)), np.arange(LENGTH)
    for _ in range(3):
        taken = rng.uniform(-1, 1, (LENGTH, 2)).astype(np.float32)
        taken[-1] = 0
        writer.write({
            "obs.image": rng.integers(0, 255, (LENGTH, 3, 32, 32)).astype(np.uint8),
            "action": taken, "reward": np.zeros(LENGTH, np.float32), "is_first": index == 0,
            "is_last": index == LENGTH - 1, "is_terminal": np.zeros(LENGTH, bool),
        })  # fmt: skip
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lewm:mini", "jepa-wm:small"])
def test_a_run_from_data_plans_in_an_environment(model: str, rooms: Path, tmp_path: Path) -> None:
    train(resolve(model, overrides={**QUICK, "data.path": str(rooms)}), tmp_path / "run")
    found, video = plan_run(tmp_path / "run", "wf/two-room", episodes=3, goal_offset=10, budget=7)
    assert len(found.episodes) == 3 and found.success is not None and found.plans >= 3
    assert all(each.path and each.goal is not None for each in found.episodes)
    assert video is not None and video.name == "plan-0000000002.mp4"
    with av.open(str(video)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == sum(len(each.frames) + 10 for each in found.episodes)
    told = json.loads((tmp_path / "run" / "plan-0000000002.json").read_text())
    assert told["success"] == found.success and told["planner"] == "CEM"
    again, _ = plan_run(tmp_path / "run", "wf/two-room", episodes=3, goal_offset=10, budget=7)
    assert [each.path for each in again.episodes] == [each.path for each in found.episodes]
    with pytest.raises(ConfigError, match="say where to plan with --env"):
        plan_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="action 'action' is .* the environment has"):
        plan_run(tmp_path / "run", "wf/pendulum")


PLANS = sorted(
    {
        spec.family
        for spec in map(get_model_spec, list_models())
        if Capability.PLANNING in spec.capabilities
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("family", PLANS)
def test_every_family_that_declares_planning_is_planned_in(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For return where it predicts rewards; toward a goal where it does not."""
    search = CEMConfig(horizon=3, candidates=8, elites=2, iterations=2)
    monkeypatch.setattr(agents, "SEARCH", search)
    spec, learner, make = get_model_spec(family), None, None
    check = spec.check or CheckSettings({}, preset="tiny" if "tiny" in spec.presets else None)
    name = f"{family}:{check.preset or spec.default_preset}"
    goals = Capability.REWARD_PRED not in spec.capabilities
    for env, options in ENVS:
        sizes = {"size": check.image} if "size" in options else {}
        make = partial(make_env, "wf/two-room" if goals else env, **{**options, **sizes})
        one = make()
        try:
            learner = create_agent(
                name, obs_spec=observation_specs(one.observation_space),
                action_spec=action_specs(one.action_space), **dict(check.overrides),
            )  # fmt: skip
            break
        except CapabilityError:
            continue
        finally:
            one.close()
    assert isinstance(learner, Learner) and make is not None, family
    agent = planning_agent(learner.eval(), goals)
    clock = timed(agent)
    played = play(agent, make, 1, seed=0, budget=2, shown=0)
    assert clock.plans >= 1 and played[0].steps >= 1
    assert (played[0].success is not None) == goals


def test_a_collapse_is_in_the_log_of_its_run(rooms: Path, tmp_path: Path) -> None:
    """Embeddings of one number vary along one direction, whatever they learn."""
    sizes = {"model.conv": [4], "model.embed": 1, "model.projector": 8, "train.steps": 50}
    config = resolve("lewm:mini", overrides={**QUICK, **sizes, "data.path": str(rooms)})
    run = train(config, tmp_path / "run").run
    said = "WARNING worldflux_jepa.collapse: update 50: the representation collapsed: "
    assert said + "representations vary along one direction" in run.log_path.read_text()
    assert any(row.get("train/rep/rank", 9) < 1.5 for row in run.metrics())


def test_two_room_takes_goals_and_tells_the_place() -> None:
    env = make_env("wf/two-room", obs="pixels", size=32)
    _, info = env.reset(seed=3)
    inner = env.unwrapped
    start = inner.get_state()
    for _ in range(8):
        env.step(np.array([1.0, 0.5], np.float32))
    goal, seen = inner.get_state(), inner.observation()["image"]
    inner.set_state(start)
    np.testing.assert_allclose(inner.info()["position"], info["position"])
    inner.set_goal(goal)
    assert np.array_equal(inner.observation()["goal"], seen)
    reached = [env.step(np.array([1.0, 0.5], np.float32)) for _ in range(8)]
    assert any(terminated and reward == 1 for _, reward, terminated, _, _ in reached)

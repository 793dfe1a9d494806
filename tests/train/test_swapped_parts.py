"""A part of the caller's is used like the family's own: in every command, and served as a world."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import worldflux
from worldflux.cli.app import build_app
from worldflux.errors import ContractError
from worldflux.planning import PlanningAgent
from worldflux.planning.config import PlanningAgentConfig
from worldflux.runs import Run
from worldflux.trust import TrustError
from worldflux_train import api, compare, resolve
from worldflux_train.options import find_here

SOURCE = '''
import torch
from torch import nn
from worldflux import State

class Wide(nn.Module):
    """More features than the tiny encoder has."""

    def __init__(self, model, units=48):
        super().__init__()
        self.net = nn.Linear(model.obs_spec["state"].size, units)

    def forward(self, obs):
        return State({"embed": torch.tanh(self.net(obs["state"].float()))})

class Blind(Wide):
    def forward(self, obs):
        return State({"embed": super().forward(obs)["embed"].detach()})

class Wrong(Wide):
    def forward(self, obs):
        return State({"seen": super().forward(obs)["embed"]})
'''
TRUST = ("own_parts",)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a command, with a module `own_parts` in it that is not on the path."""
    (tmp_path / "own_parts.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    sys.modules.pop("own_parts", None)


def _cli(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert result.exit_code == code, (result.exception, result.output)
    return result


QUICK = [
    "--set", "train.eval_episodes=1", "--set", "train.replay_capacity=100", "--set",
    "train.checkpoint_every=20",
]  # fmt: skip


def test_a_run_with_a_part_is_evaluated_planned_with_and_a_world(here: Path, site: Any) -> None:
    find_here(TRUST)
    quick = {"train.eval_episodes": 1, "train.replay_capacity": 100, "train.eval_every": 0}
    part = {"class": "own_parts:Wide", "units": 6}
    api.train(
        resolve("tiny", "gym/CartPole-v1", overrides=quick, steps=20), "run",
        slots={"observation_encoder": part},
    )  # fmt: skip
    refused = _cli("eval", "run", "--episodes", 1, code=1)
    assert isinstance(refused.exception, TrustError)
    assert str(refused.exception).endswith("worldflux eval run --episodes 1 --trust own_parts")
    assert "return" in _cli("eval", "run", "--episodes", 1, "--trust", "own_parts").output

    with pytest.raises(TrustError):
        worldflux.from_pretrained("run")
    agent = worldflux.from_pretrained("run", kind=worldflux.Agent, trust=TRUST)
    model = agent.world_model
    assert model.features["embed"].shape == (6,)
    assert {name for name in agent.state_dict() if ".observation_encoder." in name} == {
        "world_model.observation_encoder.net.weight", "world_model.observation_encoder.net.bias",
    }  # fmt: skip
    planner: Any = {"kind": "random_shooting", "horizon": 2, "candidates": 4}
    planning = PlanningAgent(model, PlanningAgentConfig(planner=planner))
    first = torch.ones(1, dtype=torch.bool)
    assert planning.act({"state": torch.zeros(1, 4)}, None, first)[0].tensor is not None

    with pytest.raises(TrustError, match=r"pass trust=\('own_parts',\)"):
        worldflux.make_env("wm/run")
    dream = worldflux.make_env("wm/run", trust=TRUST, horizon=3)
    assert dream.reset(seed=0)[0]["state"].shape == (4,)
    inside = {**quick, "env.horizon": 5}
    said = _cli("train", "tiny", "--env", "wm/run", "--steps", 20, "--out", "in", code=1)
    assert str(said.exception).endswith(" --trust own_parts") and not Path("in").exists()
    api.train(resolve("tiny", "wm/run", overrides=inside, steps=12, trust=TRUST), "in")


@pytest.mark.slow
def test_the_commands_find_train_and_use_a_part(here: Path, site: Any) -> None:
    part = "slots.observation_encoder={class: own_parts:Wide, units: 6}"
    where = ["--env", "gym/CartPole-v1", "--steps", 40, "--out", "run"]
    _cli("train", "tiny", *where, *QUICK, "--set", part)
    _cli("imagine", "run", "--horizon", 2, "--context", 1, "--episodes", 1, "--trust", "own_parts")
    _cli("train", "--resume", "run", "--steps", 60, "--trust", "own_parts")
    inside = ["--env", "wm/run", "--steps", 20, "--out", "in", *QUICK, "--trust", "own_parts"]
    _cli("train", "tiny", *inside)


def test_what_does_not_fit_leaves_no_run_folder(tiny: Any, here: Path, site: Any) -> None:
    find_here(TRUST)
    with pytest.raises(ContractError, match="Wrong as its observation_encoder: expected 'embed'"):
        api.train(tiny(), here / "run", slots={"observation_encoder": "own_parts:Wrong"})
    assert not (here / "run").exists()


def test_a_part_without_a_gradient_is_a_warning(
    tiny: Any, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    find_here(TRUST)
    with caplog.at_level(logging.WARNING):
        api.train(tiny(), here / "run", slots={"observation_encoder": "own_parts:Blind"})
        api.train(tiny(), here / "seeing", slots={"observation_encoder": "own_parts:Wide"})
    said = [text for text in caplog.messages if "gradient" in text]
    assert len(said) == 1
    assert "observation_encoder.net.weight, observation_encoder.net.bias: they stay" in said[0]


def test_rows_of_a_comparison_have_parts_of_their_own(tiny: Any, here: Path) -> None:
    find_here(TRUST)
    quick = {"train.eval_episodes": 1, "train.replay_capacity": 100, "train.eval_every": 20}
    found = compare(
        ["own=tiny", "wide=tiny", "small=tiny"], "gym/CartPole-v1", steps=20, seeds=1,
        out=here / "cmp", overrides=quick,
        slots={
            "wide": {"observation_encoder": "own_parts:Wide"},
            "small": {"observation_encoder": {"class": "own_parts:Wide", "units": 3}},
        },
    )  # fmt: skip
    assert [standing.label for standing in found.standings]
    runs = {run.parent.name: Run.open(run) for run in (here / "cmp").glob("*/seed-0")}
    texts = {label: run.config_path.read_text() for label, run in runs.items()}
    assert "slots" not in texts["own"] and "own_parts:Wide" in texts["wide"]
    assert "units: 3" in texts["small"]


def test_only_what_is_named_is_looked_for_beside_the_command(here: Path) -> None:
    before = list(sys.path)
    find_here(("elsewhere", "./player.x86_64", "torch"))
    assert sys.path == before
    find_here(TRUST)
    assert sys.path == [*before, str(here)]

"""Scores of trained runs: `worldflux eval RUN RUN`, and starts that are alike for every agent."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from worldflux.cli.app import build_app
from worldflux.errors import CapabilityError, ConfigError
from worldflux.runs import Run
from worldflux_train import api, evaluation
from worldflux_train.assembly import make_evaluation_envs
from worldflux_train.config import resolve
from worldflux_train.scoring import score_runs
from worldflux_train.statistics import bootstrap_ci, iqm

POLE = "gym/CartPole-v1"


@pytest.fixture(scope="module")
def runs(site: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two short runs that differ in their seed, each with two checkpoints."""
    folder = tmp_path_factory.mktemp("scored")
    quick = {
        "train.steps": 40, "train.eval_episodes": 2, "train.checkpoint_every": 20,
        "train.replay_capacity": 500, "train.threads": 1, "train.device": "cpu",
    }  # fmt: skip
    for seed in range(2):
        config = resolve("tiny", POLE, overrides={**quick, "train.seed": seed})
        api.train(config, folder / f"run{seed}")
    return [folder / "run0", folder / "run1"]


def _eval(*words: object) -> str:
    done = CliRunner().invoke(build_app(), ["eval", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_one_table_of_runs_and_seeds(runs: list[Path], tmp_path: Path) -> None:
    files = [tmp_path / f"scores{kind}" for kind in (".csv", ".json", ".tex", ".md")]
    out = [word for file in files for word in ("--out", file)]
    said = _eval(*runs, "--seeds", 3, "--episodes", 2, *out)
    assert said.count("3 seeds of 2 episodes") == 2 and "all 2 runs" in said
    lines = json.loads(files[1].read_text())
    by_hand = [api.evaluate_run(runs[0], 2, seed=seed).mean for seed in (1, 2, 3)]
    np.testing.assert_allclose(lines[0]["samples"], by_hand)
    assert (lines[0]["IQM"]["low"], lines[0]["IQM"]["high"]) == bootstrap_ci(by_hand)
    means = [np.mean(line["samples"]) for line in lines[:2]]
    assert lines[2]["run"] == "all 2 runs" and lines[2]["samples"] == pytest.approx(means)
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    assert float(rows[0]["IQM"]) == pytest.approx(iqm(by_hand)) and rows[0]["env"] == POLE
    assert files[2].read_text().startswith(r"\begin{tabular}{lrrrrrrrrr}")
    assert files[3].read_text() in said


@pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date")
def test_checkpoints_and_environments_of_a_suite(runs: list[Path]) -> None:
    suite = {
        "tasks": {
            POLE: {"low": 0, "high": 20},
            "gym/CartPole-v0": {"low": 0, "high": 20, "set": {"env.max_episode_steps": 5}},
        }
    }
    found = score_runs(runs[:1], suite=suite, seeds=[4], episodes=3, steps="every")
    kept = sorted(int(folder.name) for folder in (runs[0] / "checkpoints").iterdir())
    assert [line.step for line in found] == [step for step in kept for _ in range(3)]
    both = found[2]
    assert (both.env, both.what, both.over) == ("all 2", "normalised return", "3 episodes")
    own = np.stack([line.samples / 20 for line in found[:2]], 1)
    np.testing.assert_allclose(both.samples, own)
    assert found[1].samples.max() == 5  # the option of that environment holds


def test_what_cannot_be_scored(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(
        CapabilityError, match=r"observation 'state' is .*, gym/Acrobot-v1 has .*: it"
    ):
        score_runs(runs[:1], "gym/Acrobot-v1", seeds=1, episodes=1)
    with pytest.raises(ConfigError, match=r"tables are written as \.csv, \.md, \.tex, \.json"):
        _eval(runs[0], "--out", tmp_path / "scores.xls")
    with pytest.raises(ConfigError, match="means all that are kept: leave --step out"):
        _eval(runs[0], "--every-checkpoint", "--step", 40)


def test_starts_are_alike_whenever_episodes_end(runs: list[Path], monkeypatch: Any) -> None:
    """Whatever the number of environments, the agent and the cuts: the same eight starts."""

    def starts(run: Path, envs: int, most: int | None) -> set[tuple[float, ...]]:
        config, agent = api.load_run(run)
        seen, act = set(), agent.act

        def watched(obs: Any, state: Any, first: Any, *more: Any, **rand: Any) -> Any:
            seen.update(tuple(row.tolist()) for row in obs["state"][first])
            return act(obs, state, first, *more, **rand)

        monkeypatch.setattr(agent, "act", watched)
        monkeypatch.setattr(evaluation, "MOST_ENVS", envs)
        evaluation.evaluate(
            agent, lambda count: make_evaluation_envs(config, count), 8, 3, torch.device("cpu"),
            max_steps=most,
        )  # fmt: skip
        return seen

    env = make_evaluation_envs(api.run_config(Run.open(runs[0])), 1)
    env.episode_seeds = lambda i, episode: evaluation.start_seed(3, episode)
    eight = {tuple(env.reset()[0]["state"][0].tolist()) for _ in range(8)}
    assert len(eight) == 8
    for run, envs, most in (
        (runs[0], 8, None),
        (runs[0], 3, None),
        (runs[0], 2, 4),
        (runs[1], 1, None),
    ):
        assert eight <= starts(run, envs, most)


def test_an_episode_that_fails_is_tried_again_from_another_start() -> None:
    games = evaluation._Games([2, 2], None)
    starts = evaluation._Starts(games, 5)
    first, again = starts(1, 0), starts(1, 1)
    assert first == evaluation.start_seed(5, 1) != again
    games.done[1].append((0.0, 1))
    assert starts(1, 2) == evaluation.start_seed(5, 3)
    starts.begin()
    assert starts(0, 0) == evaluation.start_seed(5, 0)

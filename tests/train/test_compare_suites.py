"""Comparisons on several environments: suites, normalised scores, tables and profiles."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from worldflux.cli.app import build_app
from worldflux.errors import ConfigError
from worldflux.runs import Run
from worldflux.trust import TrustError
from worldflux_train.comparison.compare import Comparison, compare
from worldflux_train.comparison.entries import plan
from worldflux_train.comparison.suites import places, read_suite, shipped
from worldflux_train.statistics import bootstrap_band, bootstrap_ci, iqm, performance_profile

pytestmark = pytest.mark.usefixtures("site")
QUICK: dict[str, Any] = {
    "train.eval_episodes": 1, "train.eval_every": 10, "train.log_every": 20, "train.threads": 1,
    "train.checkpoint_every": 20, "train.replay_capacity": 500, "train.device": "cpu",
}  # fmt: skip
SUITE = """
steps: 20
set: {train.round: 2}
tasks:
  gym/CartPole-v1: {low: 10, high: 30}
  walk/any:
    low: 0
    high: 12
    set: {env.noise: 0.5}
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("suite") / "mine.yaml"
    file.write_text(SUITE)
    return file


@pytest.fixture(scope="module")
def finished(site: Any, suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    out = tmp_path_factory.mktemp("suites") / "out"
    return compare(["tiny", "tiny:wide"], suite=suite, out=out, seeds=2, overrides=QUICK)


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def _finals(out: Path, model: str, env: str) -> list[float]:
    runs = [Run.open(out / model / env / f"seed-{seed}") for seed in range(2)]
    return [[r["eval/return"] for r in run.metrics() if "eval/return" in r][-1] for run in runs]


def test_scores_of_a_suite_are_normalised_by_its_returns(finished: Comparison) -> None:
    pole, walk = (_finals(finished.path, "tiny", e) for e in ("gym-CartPole-v1", "walk-any"))
    expected = np.stack([(np.array(pole) - 10) / 20, np.array(walk) / 12], 1)
    standing = finished.standings[0]
    np.testing.assert_allclose(standing.scores, expected)
    assert finished.scale is not None and finished.scale.gamma == 1.0
    assert standing.statistics["IQM"].value == iqm(expected)
    assert (standing.statistics["IQM"].low, standing.statistics["IQM"].high) == bootstrap_ci(
        expected
    )
    np.testing.assert_array_equal(standing.tasks["gym/CartPole-v1"].returns, pole)
    assert standing.tasks["walk/any"].score == pytest.approx(np.mean(expected[:, 1]))
    assert standing.curve.values[-1].value == pytest.approx(iqm(expected))


def test_the_tables_of_a_suite(finished: Comparison) -> None:
    rows = _rows(finished.path / "tasks.csv")
    assert [(row["env"], row["model"]) for row in rows] == [
        ("gym/CartPole-v1", "tiny"), ("walk/any", "tiny"),
        ("gym/CartPole-v1", "tiny:wide"), ("walk/any", "tiny:wide"),
    ]  # fmt: skip
    assert (rows[0]["return_of_0"], rows[0]["return_of_1"]) == ("10.0", "30.0")
    pole = _finals(finished.path, "tiny", "gym-CartPole-v1")
    assert float(rows[0]["return_IQM"]) == pytest.approx(iqm(pole))
    markdown = (finished.path / "tasks.md").read_text().splitlines()
    assert markdown[0] == "| Environment | tiny | tiny:wide |" and len(markdown) == 4
    assert (finished.path / "tasks.tex").read_text().startswith(r"\begin{tabular}{lrr}")
    curves = _rows(finished.path / "curves.csv")
    assert {row["env"] for row in curves} == {"gym/CartPole-v1", "walk/any"}
    text = finished.report.read_text()
    assert text.count("<svg") == 4 and "on <code>2 environments</code>" in text
    assert "gym/CartPole-v1: 10.0 and 30.0; walk/any: 0.000 and 12.0" in text and "$" not in text


def test_settings_of_a_suite_reach_its_runs(suite: Path) -> None:
    entries = plan(["tiny"], places(suite=suite), seeds=[0], steps=20)
    assert [entry.folder for entry in entries] == [
        "tiny/gym-CartPole-v1/seed-0", "tiny/walk-any/seed-0",
    ]  # fmt: skip
    assert [entry.config.train.round for entry in entries] == [2, 2]
    assert [entry.config.env_options for entry in entries] == [{}, {"noise": 0.5}]
    overridden = plan(["tiny"], places(suite=suite), seeds=[0], steps=20,
                      overrides={"train.round": 3})  # fmt: skip
    assert overridden[0].config.train.round == 3  # the caller's word stands above a file


def test_profile_is_the_share_of_runs_above_each_score(finished: Comparison) -> None:
    rows = [row for row in _rows(finished.path / "profile.csv") if row["model"] == "tiny"]
    scores = finished.standings[0].scores
    taus = np.array([float(row["score"]) for row in rows])
    share = [float((scores > tau).mean()) for tau in taus]
    np.testing.assert_allclose([float(row["share"]) for row in rows], share)
    low, high = (np.array([float(row[f"share_{end}"]) for row in rows]) for end in ("low", "high"))
    assert (low <= np.array(share)).all() and (np.array(share) <= high).all()


def test_profiles_by_hand() -> None:
    scores = np.array([[0.0, 2.0], [1.0, 3.0]])
    found = performance_profile(scores, [-1.0, 0.0, 1.5, 3.0])
    np.testing.assert_array_equal(found, [1.0, 0.75, 0.5, 0.0])
    low, high = bootstrap_band(scores, lambda x: performance_profile(x, [1.5]), (1,))
    assert (low, high) == (0.5, 0.5)  # each task on its own: the first never passes 1.5 alone
    with pytest.raises(Exception, match=r"maps \(R, N, M\) to \(R, 2\): for R="):
        bootstrap_band(scores, lambda x: performance_profile(x, [1.5]), (2,))


def test_without_known_returns_scores_are_relative_to_the_comparison(
    finished: Comparison, tmp_path: Path
) -> None:
    envs = ["gym/CartPole-v1", "walk/any"]
    found = compare(["tiny"], envs, out=tmp_path / "out", steps=10, seeds=2, overrides=QUICK)
    assert found.scale is not None and found.scale.relative
    for env, reached in found.standings[0].tasks.items():
        low, high = found.scale.tasks[env]
        assert low == reached.returns.min() and high >= reached.returns.max()
    assert "lowest and the highest final return of this comparison" in found.report.read_text()
    with pytest.raises(ConfigError, match=r"holds a comparison on several environments, and this"):
        compare(["tiny"], envs[0], out=tmp_path / "out", steps=10, seeds=2, overrides=QUICK)


def test_several_envs_on_the_command_line(site: Any, tmp_path: Path) -> None:
    words = ["compare", "tiny", "--steps", "9", "--out", str(tmp_path), "--env", "gym/CartPole-v1"]
    with pytest.raises(ConfigError, match=r"walk/any has no option env\.nois"):  # both are read
        CliRunner().invoke(
            build_app(),
            [*words, "--env", "walk/any", "--set", "env.nois=1"],
            catch_exceptions=False,
        )


def test_shipped_suites() -> None:
    assert list(shipped()) == ["atari100k", "dmc18"]
    atari = places(suite="atari100k")
    assert len(atari) == 26 and read_suite("atari100k").steps == 100_000
    pong = next(place for place in atari if place.env == "atari/Pong")
    assert (pong.low, pong.high) == (-20.7, 14.6)
    assert {(place.low, place.high) for place in places(suite="dmc18")} == {(0.0, 1000.0)}


@pytest.mark.parametrize(
    ("envs", "suite", "text"),
    [
        ((), None, r"needs environments \(--env BACKEND/TASK"),
        ("walk/any", "atari100k", "one of the two"),
        (["walk/any", "walk/any"], None, r"walk/any is given twice"),
        ((), "atari100", r"is neither a file nor a suite\. Did you mean 'atari100k'"),
        ((), {"tasks": {}}, "the suite has no tasks"),
        ((), {"tasks": {"walk/any": {"low": 1}}}, "only one of low and high"),
        ((), {"tasks": {"walk/any": {"low": 1, "high": 1}}}, "two different returns"),
        ((), {"tasks": {"walk/any": {"hihg": 1}}}, "no key 'hihg'. Did you mean 'high'"),
    ],
)
def test_what_is_no_suite(envs: Any, suite: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        places(envs, suite)


def test_a_suite_sets_neither_model_nor_code_without_a_word(tmp_path: Path) -> None:
    fixed = {"tasks": {"walk/any": {"set": {"train.seed": 1}}}}
    with pytest.raises(ConfigError, match=r"sets train\.seed itself: use its 'seeds' instead of"):
        plan(["tiny"], places(suite=fixed), seeds=[0], steps=9)
    file = tmp_path / "evil.yaml"
    file.write_text("tasks: {'gym/evil_module:Env': {}}\n")
    with pytest.raises(TrustError, match="evil_module"):
        places(suite=file)
    assert places(suite=file, trust=("evil_module",))[0].env == "gym/evil_module:Env"
    with pytest.raises(ConfigError, match=r"would lie in one folder \(walk-a\)"):
        plan(["tiny"], ["walk/a", "walk/a_"], seeds=[0], steps=9)
    with pytest.raises(ConfigError, match="needs --steps, the agent steps of every run"):
        compare(["tiny"], "walk/any", out=tmp_path)

"""`worldflux compare`: equal budgets, resumable, strict about checkpoints, one report."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldflux.atomic import MANIFEST
from worldflux.errors import ConfigError, StorageError, UnknownIdError
from worldflux.runs import Run
from worldflux_train.comparison.cli import _configs
from worldflux_train.comparison.compare import Comparison, compare
from worldflux_train.comparison.entries import plan
from worldflux_train.comparison.results import Finished, read_run, scale_of, standings
from worldflux_train.comparison.running import ended
from worldflux_train.comparison.suites import places
from worldflux_train.statistics import bootstrap_ci, iqm

pytestmark = pytest.mark.usefixtures("site")
ENV, MODELS = "gym/CartPole-v1", ["tiny", "tiny:wide"]
QUICK: dict[str, Any] = {
    "train.eval_episodes": 2,
    "train.log_every": 20,
    "train.checkpoint_every": 25,
    "train.replay_capacity": 500,
    "train.threads": 1,
    "train.device": "cpu",
}


def _compare(out: Path, **other: Any) -> Comparison:
    asked: dict[str, Any] = {"steps": 60, "seeds": 3, "overrides": QUICK, **other}
    return compare(MODELS, ENV, out=out, **asked)


@pytest.fixture(scope="module")
def finished(site: Any, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return _compare(tmp_path_factory.mktemp("compared") / "out")


@pytest.fixture
def copy(finished: Comparison, tmp_path: Path) -> Path:
    """A finished comparison of one's own."""
    shutil.copytree(finished.path, tmp_path / "copy")
    return tmp_path / "copy"


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def _written(path: Path) -> dict[str, tuple[int, float]]:
    """Size and time of every file of the runs."""
    stats = {file: file.stat() for file in path.glob("*/seed-*/**/*") if file.is_file()}
    return {str(file.relative_to(path)): (s.st_size, s.st_mtime) for file, s in stats.items()}


class Page(HTMLParser):
    """Tags that stay open, and addresses a page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.loaded += [value for key, value in attrs if key in ("src", "href")]


def test_every_model_has_every_seed_and_the_same_budget(finished: Comparison) -> None:
    rows = _rows(finished.path / "curves.csv")
    found = {(row["model"], row["seed"]) for row in rows}
    assert found == {(model, str(seed)) for model in MODELS for seed in range(3)}
    for standing in finished.standings:
        steps = standing.curve.steps
        assert len(steps) == len(standing.curve.values) == 11
        # rounds end up to 4 steps after an evaluation is due
        assert all(0 <= step - 6 * i < 4 for i, step in enumerate(steps)), steps
    assert all(int(row["episodes"]) == 2 for row in rows)
    returns = {tuple(row["return"] for row in rows if row["seed"] == seed) for seed in "012"}
    assert len(returns) == 3  # seeds differ


def test_table_is_the_statistics_of_the_final_returns(finished: Comparison) -> None:
    finals = [
        [row["eval/return"] for row in Run.open(finished.path / "tiny-wide" / f"seed-{s}").metrics()
         if "eval/return" in row][-1]
        for s in range(3)
    ]  # fmt: skip
    row = _rows(finished.path / "table.csv")[1]
    assert (row["model"], row["seeds"]) == ("tiny:wide", "3")
    low, high = bootstrap_ci(finals, iqm)
    found = [float(row[key]) for key in ("IQM", "IQM_low", "IQM_high", "mean", "median")]
    expected = [iqm(finals), low, high, np.mean(finals), np.median(finals)]
    np.testing.assert_allclose(found, expected)
    best = max(s.scores.max() for s in finished.standings)
    assert finished.scale is not None and finished.scale.gamma == best
    assert float(row["gap"]) == pytest.approx(best - np.mean(finals))
    assert 0 < float(row["cpu_seconds"]) < 60 and 0 < float(row["wall_seconds"]) < 60


def test_markdown_and_latex_say_what_the_csv_says(finished: Comparison) -> None:
    markdown = (finished.path / "table.md").read_text().splitlines()
    assert [line.count("|") for line in markdown] == [9] * 4
    row = _rows(finished.path / "table.csv")[0]
    value = f"{float(row['IQM']):.3f}" if float(row["IQM"]) < 10 else f"{float(row['IQM']):.1f}"
    assert f"| tiny | 3 | {value} [" in markdown[2]
    latex = (finished.path / "table.tex").read_text()
    assert f"tiny & 3 & {value} [" in latex and latex.count(r" \\") == 3
    assert latex.startswith(r"\begin{tabular}{lrrrrrrr}")


def test_report_is_one_file_with_everything(finished: Comparison) -> None:
    text = finished.report.read_text()
    page = Page(text)
    assert page.tags.count("svg") == 3 and not [x for x in page.loaded if not x.startswith("#")]
    assert page.tags.count("details") == 3  # two configurations, versions
    for said in ("<h1>tiny · tiny:wide</h1>", ENV, "tiny-wide/seed-2", "CPU time", "width: 32"):
        assert said in text
    for row in _rows(finished.path / "table.csv"):
        assert f"<td>{row['model']}</td><td>3</td>" in text
    assert "By environment" not in text
    assert "$" not in text


def test_asked_again_nothing_is_trained_again(copy: Path, finished: Comparison) -> None:
    before, table = _written(copy), (copy / "table.csv").read_text()
    (copy / "report.html").unlink()
    again = _compare(copy)
    assert _written(copy) == before and (copy / "table.csv").read_text() == table
    assert again.report.is_file()


def test_a_missing_run_is_trained_and_gives_the_same(copy: Path, finished: Comparison) -> None:
    before = _written(copy)
    shutil.rmtree(copy / "tiny" / "seed-1")
    again = _compare(copy)
    kept = {file: stat for file, stat in _written(copy).items() if "tiny/seed-1" not in file}
    assert kept == {file: stat for file, stat in before.items() if "tiny/seed-1" not in file}
    for one, other in zip(again.standings, finished.standings, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)


def test_longer_is_a_continuation(copy: Path, tmp_path: Path) -> None:
    overrides = {**QUICK, "train.eval_every": 6}
    longer = _compare(copy, steps=90, seeds=1, overrides=overrides)
    whole = _compare(tmp_path / "whole", steps=90, seeds=1, overrides=overrides)
    for one, other in zip(longer.standings, whole.standings, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.curve == other.curve


def test_what_the_environment_filled_in_is_no_other_configuration(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"steps": 30, "seeds": 1, "out": tmp_path, "overrides": QUICK}
    compare(["limited"], ENV, **asked)
    run = Run.open(tmp_path / "limited" / "seed-0")
    assert "limit: 500" in run.config_path.read_text()
    before = _written(tmp_path)
    assert compare(["limited"], ENV, **asked).outcome == "finished"
    assert _written(tmp_path) == before
    with pytest.raises(ConfigError, match=r"model\.limit is 500, not 7\. Ask for the same again"):
        compare(["limited"], ENV, **{**asked, "overrides": {**QUICK, "model.limit": 7}})


def test_another_configuration_in_the_same_folder_is_refused(copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed-0 holds a run of 'tiny' with another configurat"):
        _compare(copy, overrides={**QUICK, "tiny/model.lr": 0.5})
    with pytest.raises(ConfigError, match=r"train\.steps is 60, not 30\. Ask for the same again"):
        _compare(copy, steps=30, overrides={**QUICK, "train.eval_every": 6})


@pytest.mark.parametrize("where", ["collector.safetensors", "agent/*.safetensors", MANIFEST])
def test_a_checkpoint_that_fails_to_load_is_an_error(copy: Path, where: str) -> None:
    run = Run.open(copy / "tiny-wide" / "seed-0")
    newest = run.latest_checkpoint()
    assert newest is not None
    file = next(newest.glob(where))
    file.write_bytes(file.read_bytes()[:-9] + b"123456789")
    before = _written(copy)
    with pytest.raises(
        StorageError, match=rf"Checkpoint .*{newest.name} does not load: .*seed-0 to"
    ):
        _compare(copy)
    assert _written(copy) == before  # nothing was trained, moved or deleted


def test_weights_of_another_model_are_an_error(copy: Path) -> None:
    """Intact by its seal, yet of another shape."""
    run = Run.open(copy / "tiny-wide" / "seed-0")
    newest, other = run.latest_checkpoint(), Run.open(copy / "tiny" / "seed-0").latest_checkpoint()
    assert newest is not None and other is not None
    shutil.rmtree(newest)
    shutil.copytree(other, newest)
    with pytest.raises(StorageError, match=r"does not load: .* Restore it, delete it to go on"):
        _compare(copy)


def test_a_killed_comparison_continues(site: Any, tmp_path: Path, finished: Comparison) -> None:
    command = site.command(
        "compare", *MODELS, "--env", ENV, "--steps", 60, "--out", tmp_path / "out",
        *(part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")),
    )  # fmt: skip
    process = subprocess.Popen(command, env=site.environment, stdout=subprocess.DEVNULL)
    halfway = tmp_path / "out" / "tiny" / "seed-1" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not halfway.is_file() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "report.html").exists()
    first = _written(tmp_path / "out" / "tiny-wide")
    done = subprocess.run(
        command, env=site.environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "tiny:wide, seed 2 (run 6 of 6)" in done.stdout and "| tiny:wide | 3 |" in done.stdout
    assert first.items() <= _written(tmp_path / "out" / "tiny-wide").items()
    columns = ("model", "IQM", "IQM_low", "mean", "median", "gap")
    rows = [_rows(path / "table.csv") for path in (tmp_path / "out", finished.path)]
    assert [[row[c] for c in columns] for row in rows[0]] == [
        [row[c] for c in columns] for row in rows[1]
    ]


def test_ctrl_c_saves_and_says_how_to_go_on(site: Any, tmp_path: Path) -> None:
    command = site.command(
        "compare", "tiny", "--env", ENV, "--steps", 200000, "--seeds", 1, "--out", tmp_path / "out"
    )
    process = subprocess.Popen(command, env=site.environment, stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "out" / "tiny" / "seed-0" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted and saved. Continue with the same command." in said


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    found = _compare(tmp_path / "out", seeds=1)
    for standing in found.standings:
        assert standing.statistics["IQM"].low is None
    assert _rows(found.path / "table.csv")[0]["IQM_low"] == ""
    assert "[" not in (found.path / "table.md").read_text()


def test_names_recipes_and_keys_of_one_model(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {lr: 0.25}\ntrain: {eval_every: 1}\n")
    entries = plan(
        ["fast=tiny", "tiny", "from-file=tiny:wide"], ENV, seeds=[4, 2], steps=100,
        configs={"from-file": recipe}, overrides={"fast/model.lr": 0.5, "train.round": 2},
    )  # fmt: skip
    assert [(e.label, e.seed) for e in entries[:4]] == [
        ("fast", 4), ("tiny", 4), ("from-file", 4), ("fast", 2),
    ]  # fmt: skip
    assert [e.config.family.to_dict()["lr"] for e in entries[:3]] == [
        0.5, entries[1].config.family.to_dict()["lr"], 0.25,
    ]  # fmt: skip
    assert {e.config.train.round for e in entries} == {2}
    assert {e.config.train.eval_every for e in entries} == {10}  # the same for all
    assert entries[2].folder == "from-file/seed-4"


@pytest.mark.parametrize(
    ("models", "other", "kind", "text"),
    [
        (["tiny", "tiny"], {}, ConfigError, r"needs a name of its own, got \['tiny', 'tiny'\]"),
        (["a="], {}, ConfigError, r"such as other=dreamerv3:size1m\."),
        ([], {}, ConfigError, r"needs at least one model, such as"),
        (["tiny"], {"seeds": [1, 1]}, ConfigError, r"one seed, each once; got \[1, 1\]\."),
        (["tiny"], {"overrides": {"train.seed": 3}}, ConfigError, r"sets train\.seed itself: use"),
        (["tiny"], {"overrides": {"tini/model.lr": 1}}, UnknownIdError,
         r"no model 'tini'\. Did you mean 'tiny'\? It has: tiny\."),
        (["tiny"], {"configs": {"tin": {}}}, UnknownIdError, r"no model 'tin'\."),
        (MODELS, {"overrides": {"tiny:wide/train.envs": 2}}, ConfigError,
         r"train\.envs is 1 for 'tiny' and 2 for 'tiny:wide'\. Set it for all: --set train\.envs="),
        (MODELS, {"configs": {"tiny": {"env": {"action_repeat": 2}}}}, ConfigError,
         r"env\.action_repeat is 2 for 'tiny' and None for 'tiny:wide'"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared(models: Any, other: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        plan(models, ENV, **{"seeds": [0], "steps": 10, **other})


def test_config_option_names_a_model() -> None:
    assert _configs(["tiny:wide=a=b.yaml"]) == {"tiny:wide": "a=b.yaml"}
    with pytest.raises(ConfigError, match=r"--config takes NAME=FILE or NAME=RECIPE, got 'x'"):
        _configs(["x"])


def test_atari_scores_are_human_normalised(finished: Comparison) -> None:
    """The runs of CartPole, read as if their environment were a game."""
    entries = plan(["tiny"], ENV, seeds=range(3), steps=60, overrides=QUICK)
    as_game = places("atari/ms_pacman")[0]
    runs = [
        Finished(
            replace(entry, place=as_game), read_run(entry, finished.path / entry.folder).evaluations
        )
        for entry in entries
    ]
    scale = scale_of(runs, None)
    assert (scale.human, scale.gamma, scale.unit) == (True, 1.0, "human-normalised return")
    expected = (np.array([run.final for run in runs]) - 307.3) / (6951.6 - 307.3)
    np.testing.assert_allclose(standings(runs, scale)[0].scores, expected)


def test_a_run_without_its_last_evaluation_is_not_ended(copy: Path) -> None:
    entry = plan(["tiny"], ENV, seeds=[0], steps=60, overrides=QUICK)[0]
    run = Run.open(copy / entry.folder)
    assert ended(run, 60) and not ended(run, 99)
    rows = [row for row in run.metrics() if not ("eval/return" in row and row["step"] >= 60)]
    run.metrics_path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert not ended(run, 60)
    with pytest.raises(StorageError, match=r"no evaluation at its end, step 60\. Delete it to tr"):
        read_run(entry, run.path)

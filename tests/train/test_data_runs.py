"""Runs from data alone, from data judged by an environment, and from data and a replay mixed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from worldflux.columns import step_columns
from worldflux.core.evaluation import Evaluation
from worldflux.episodes import EpisodeWriter
from worldflux.errors import CapabilityError, ConfigError, ContractError
from worldflux.runs import Run
from worldflux.specs import TensorSpec
from worldflux.testing.clips import ClipLearner
from worldflux_train import api
from worldflux_train.cli import add_commands
from worldflux_train.comparison.entries import plan
from worldflux_train.config import resolve
from worldflux_train.data import held_out_episodes, open_data
from worldflux_train.evaluation_pictures import newest_pictures, save_pictures
from worldflux_train.report import write_report

CLIPS = step_columns({"state": TensorSpec((3,))}, extra={"label": TensorSpec((), "int64", n=2)})
WALKS = step_columns({"state": TensorSpec((3,))}, TensorSpec((), "int64", n=2))


def record(folder: Path, columns: dict[str, TensorSpec], episodes: int = 12) -> str:
    """Drifts to the right or to the left, as the label or the actions say."""
    writer, random = EpisodeWriter(folder, columns), np.random.default_rng(0)
    for number in range(episodes):
        rows = int(random.integers(8, 15))
        side = np.full(rows, number % 2)
        step = np.arange(rows)
        made: dict[str, Any] = {
            "obs.state": (random.normal(size=(rows, 3)) / 9 + (step * (2 * side - 1))[:, None]),
            "action": side * (step < rows - 1),
            "reward": side * (step > 0),
            "is_first": step == 0,
            "is_last": step == rows - 1,
            "is_terminal": np.zeros(rows, bool),
            "extra.label": side,
        }
        writer.write({name: made[name].astype(spec.dtype) for name, spec in columns.items()})
    return str(folder)


@pytest.fixture
def clips(tmp_path: Path, site: Any) -> str:
    return record(tmp_path / "clips", CLIPS)


def final(run: Run) -> dict[str, torch.Tensor]:
    folder = run.checkpoint_path(run.ticks()[-1])
    return load_file(folder / "agent" / "model.safetensors")


def comparable(run: Run) -> list[dict[str, Any]]:
    """Metrics without the clock on the wall."""
    return [
        {key: value for key, value in row.items() if not key.startswith(("time/", "memory/"))}
        for row in run.metrics()
    ]


def settings(path: str, **more: Any) -> dict[str, Any]:
    return {
        "data.path": path, "data.validation": 0.25, "train.device": "cpu", "train.eval_every": 60,
        "train.checkpoint_every": 40, "train.threads": 1, **more,
    }  # fmt: skip


def test_a_run_from_data_alone(clips: str, tmp_path: Path) -> None:
    """No actions, no rewards, no act, no environment: trained, logged, judged, saved, reported."""
    config = resolve("clips", overrides=settings(clips), steps=200)
    assert config.train.log_every == 40, "the preset's own default"
    result = api.train(config, tmp_path / "run")
    assert (result.outcome, result.step) == ("finished", 200)
    rows = list(result.run.metrics())
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 5 and losses[-1] < 0.7 * losses[0]
    logged = [row["updates"] for row in rows if "updates" in row and not row.get("final")]
    assert logged == [40, 80, 120, 160, 200]
    judged = [row["eval/loss"] for row in rows if "eval/loss" in row]
    assert len(judged) == 5 and judged[-1] < judged[0]
    weights = final(result.run)
    assert weights["world_model.std"].abs().sum() > 3.5, "begin took the data's statistics"
    done, learner = api.load_learner(result.run.path)
    assert done.family.classes == 2, "completed from the data, and written down"
    assert "classes: 2" in result.run.config_path.read_text()
    assert "extra.label" in learner.columns
    page = write_report(result.run).read_text("utf-8")
    assert "On held-out data" in page and "held-out loss" in page
    told: list[tuple[int, int]] = []
    found = api.evaluate_on_data(result.run.path, tell=lambda *count: told.append(count))
    assert len(told) > 1 and told[0][0] == 1 and told[-1] == (told[-1][1],) * 2
    assert found.metrics["loss"] == pytest.approx(judged[-1], rel=0.2)
    with pytest.raises(CapabilityError, match="ClipModel predicts neither observations"):
        api.imagine_run(result.run.path)


def test_what_a_run_from_data_imagines_and_how_it_is_judged(tmp_path: Path, site: Any) -> None:
    """Along held-out episodes and their actions, without an environment; in commands too."""
    path = record(tmp_path / "walks", WALKS)
    run = api.train(resolve("tiny", overrides=settings(path), steps=60), tmp_path / "run").run
    found, video = api.imagine_run(run.path, horizon=4, context=2, episodes=3)
    assert video.is_file() and set(found.error) == {"state", "reward"}
    held_out = open_data(resolve(config=run.config_path).data, 0)
    shown = np.array(found.real["state"])[:2]
    rows = [held_out.held_out[n]["obs.state"][:2] for n in held_out.held_out_numbers]
    assert any(np.allclose(shown, own) for own in rows), "a held-out episode is shown"
    app = typer.Typer()
    add_commands(app)
    said = CliRunner().invoke(app, ["eval", str(run.path)])
    assert said.exit_code == 0 and "on held-out data" in said.output, said.output
    counted = CliRunner().invoke(app, ["eval", str(run.path), "--episodes", "2"])
    assert "train.eval_batches" in str(counted.exception)


def test_a_run_that_holds_no_data_out_says_so(
    clips: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = settings(clips, **{"data.validation": 0.0})
    run = api.train(resolve("clips", overrides=overrides, steps=20), tmp_path / "run").run
    with pytest.raises(ConfigError, match=r"holds no data out.*Train with data.validation"):
        api.evaluate_on_data(run.path)
    data = open_data(resolve(config=run.config_path).data, 0)
    assert len(held_out_episodes(data, 2, 3, seed=0)) == 2
    assert "No data is held out" in caplog.text


def test_pictures_of_an_evaluation_are_saved_and_shown(
    clips: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still, moving = np.zeros((8, 9, 3), np.uint8), np.zeros((5, 8, 10, 3), np.uint8)
    shown = {"one by one": still, "clip": moving}
    given = Evaluation(2.0, {"loss": 1.0}, shown)
    monkeypatch.setattr(ClipLearner, "evaluate", lambda *a, **k: given)
    run = api.train(resolve("clips", overrides=settings(clips), steps=60), tmp_path / "run").run
    names = [path.name for path in newest_pictures(run)]
    assert names == ["evaluation-0000000060-clip.mp4", "evaluation-0000000060-one-by-one.png"]
    page = write_report(run).read_text("utf-8")
    assert "one-by-one.png" in page and "data:image/png" in page and "held-out score" in page
    assert run.manifest(run.ticks()[-1])["score"] == 2.0
    with pytest.raises(ContractError, match=r"'wide' is float64 \(2, 2\): an image is uint8"):
        save_pictures(run, 1, {"wide": np.zeros((2, 2))})


def test_a_run_from_data_goes_on_bit_for_bit_after_kill_9(
    clips: str, tmp_path: Path, site: Any
) -> None:
    overrides = settings(clips, **{"data.workers": 0})
    whole = api.train(resolve("clips", overrides=overrides, steps=900), tmp_path / "whole").run
    pairs = [f"--set={key}={value}" for key, value in settings(clips).items()]
    command = site.command("train", "clips", "--steps", 900, "--out", tmp_path / "cut", *pairs)
    process = subprocess.Popen(command, env=site.environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(list((tmp_path / "cut").glob("checkpoints/0*"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    at = Run.open(tmp_path / "cut").ticks()[-1]
    assert at < 900, "it was killed in its middle"
    cut = api.resume(tmp_path / "cut").run
    assert comparable(cut) == comparable(whole)
    ours, theirs = final(cut), final(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_data_and_a_replay_are_mixed_and_resumed_bit_for_bit(tmp_path: Path, site: Any) -> None:
    path = record(tmp_path / "walks", WALKS)
    overrides = settings(
        path, **{"train.eval_episodes": 1, "train.keep_last": 9, "train.log_every": 40}
    )
    config = resolve("tiny", "gym/walk_env:Walk", overrides=overrides, steps=160)
    whole = api.train(config, tmp_path / "whole").run
    folder = whole.checkpoint_path(whole.ticks()[-1])
    assert {file.name for file in (folder / "source").iterdir()} == {"data", "replay"}
    assert any(row.get("replay", 0) > 100 for row in whole.metrics())
    # Of the checkpoint in the middle only, as if killed right after it.
    cut = tmp_path / "cut"
    shutil.copytree(whole.path, cut)
    for tick in whole.ticks()[1:]:
        shutil.rmtree(cut / whole.checkpoint_path(tick).relative_to(whole.path))
    again = api.resume(cut, trust=("walk_env",)).run
    assert comparable(again) == comparable(whole)
    ours, theirs = final(again), final(whole)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_an_environment_may_only_judge(tmp_path: Path, site: Any) -> None:
    path = record(tmp_path / "walks", WALKS)
    overrides = settings(path, **{"train.collect": False, "train.eval_episodes": 2})
    result = api.train(
        resolve("tiny", "walk/here", overrides=overrides, steps=80), tmp_path / "run"
    )
    rows = list(result.run.metrics())
    assert any("eval/return" in row for row in rows)
    assert not any("replay" in row or row.get("agent_steps") for row in rows)


def test_runs_that_cannot_learn_from_what_they_have_say_so(tmp_path: Path, clips: str) -> None:
    with pytest.raises(ConfigError, match=r"an environment \(--env backend/task\) or data"):
        resolve("clips")
    with pytest.raises(ConfigError, match="env.noise is set, but there is no env.id"):
        resolve("clips", overrides={"data.path": clips, "env.noise": 1})
    config = resolve("clips", overrides=settings(clips, **{"train.collect": True}))
    with pytest.raises(ConfigError, match="train.collect=true needs an environment"):
        api.train(config, tmp_path / "a")
    other = step_columns({"state": TensorSpec((4,))}, TensorSpec((), "int64", n=2))
    writer = EpisodeWriter(tmp_path / "other", other)
    rows = {name: np.zeros((3, *spec.shape), spec.dtype) for name, spec in other.items()}
    writer.write(rows | {"is_first": np.arange(3) == 0, "is_last": np.arange(3) == 2})
    config = resolve("tiny", "walk/here", overrides={"data.path": str(tmp_path / "other")})
    with pytest.raises(ConfigError, match=r"observation 'state' is .*\[4\].*the environment walk"):
        api.train(config, tmp_path / "b")
    walks = record(tmp_path / "walks", WALKS)
    with pytest.raises(ContractError, match="lacks extra.label, which the learner needs"):
        api.train(resolve("clips", overrides={"data.path": walks}), tmp_path / "c")
    with pytest.raises(CapabilityError, match="does not act: it cannot be used in an environment"):
        api.train(resolve("clips", "walk/here", overrides={"data.path": clips}), tmp_path / "d")


def test_models_are_compared_on_the_same_data(tmp_path: Path, site: Any) -> None:
    path = record(tmp_path / "walks", WALKS)
    app = typer.Typer()
    add_commands(app)
    pairs = [f"--set={key}={value}" for key, value in settings(path).items() if key != "data.path"]
    asked = ["compare", "tiny", "tiny:wide", "--env", "walk/here", "--steps", "20", "--seeds", "1"]
    asked += ["--out", str(tmp_path / "out"), *pairs, "--set=train.collect=false"]
    done = CliRunner().invoke(app, [*asked, "--set=train.eval_episodes=1", "--data", path])
    assert done.exit_code == 0, done.output
    for name in ("tiny", "tiny-wide"):
        assert resolve(config=tmp_path / "out" / name / "seed-0" / "config.yaml").data.path == path
    with pytest.raises(ConfigError, match=r"the same budget, but data.validation is 0.25 for"):
        plan(
            ["tiny", "tiny:wide"], "walk/here", seeds=[0], steps=20,
            overrides={**settings(path), "tiny:wide/data.validation": 0.5},
        )  # fmt: skip

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
from safetensors.torch import load_file

from worldflux.columns import step_columns
from worldflux.episodes import EpisodeWriter
from worldflux.errors import CapabilityError, ConfigError, ContractError
from worldflux.runs import Run
from worldflux.specs import TensorSpec
from worldflux_train import api
from worldflux_train.config import resolve
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
        {key: value for key, value in row.items() if not key.startswith("time/")}
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
    assert [row["updates"] for row in rows if "updates" in row] == [40, 80, 120, 160, 200]
    judged = [row["eval/loss"] for row in rows if "eval/loss" in row]
    assert len(judged) == 5 and judged[-1] < judged[0]
    weights = final(result.run)
    assert weights["world_model.std"].abs().sum() > 3.5, "begin took the data's statistics"
    done, learner = api.load_learner(result.run.path)
    assert done.family.classes == 2, "completed from the data, and written down"
    assert "classes: 2" in result.run.config_path.read_text()
    assert "extra.label" in learner.columns
    assert write_report(result.run).is_file()
    with pytest.raises(CapabilityError, match="is on data alone"):
        api.imagine_run(result.run.path)


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
    again = api.resume(cut, trust=True).run
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

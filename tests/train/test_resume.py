"""N steps, stop, resume to 2N: the same bits as 2N in one go."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worldflux.errors import StorageError
from worldflux.runs import Run
from worldflux_train import api

WALK = "gym/walk_env:Walk"


@pytest.mark.parametrize(
    ("env", "overrides"),
    [
        ("gym/CartPole-v1", {}),
        ("gym/CartPole-v1", {"train.envs": 3, "train.round": 5, "train.replay_capacity": 60}),
        ("gym/Pendulum-v1", {"train.precision": "bf16"}),
        (WALK, {"train.envs": 2, "train.replay_online": True}),
    ],
)
def test_resume_continues_bit_for_bit(
    tiny: Any, tmp_path: Path, env: str, overrides: dict[str, Any], assert_same_run: Any
) -> None:
    config = tiny(env, overrides)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = api.train(config, whole)
    api.train(config.with_steps(55), parts)
    again = api.resume(parts, steps=config.train.steps, trust=("walk_env",))
    assert (again.outcome, again.step) == ("finished", done.step)
    assert_same_run(whole, parts, done.step)


def test_another_seed_gives_another_run(tiny: Any, tmp_path: Path, untimed: Any) -> None:
    for seed in (0, 1):
        api.train(tiny(overrides={"train.seed": seed, "train.steps": 60}), tmp_path / str(seed))
    rows = [untimed(Run.open(tmp_path / str(seed))) for seed in (0, 1)]
    assert rows[0] != rows[1]


def test_resolved_configuration_runs_again(tiny: Any, tmp_path: Path, assert_same_run: Any) -> None:
    done = api.train(tiny(), tmp_path / "one")
    config = api.resolve(config=tmp_path / "one" / "config.yaml")
    api.train(config, tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two", done.step)


def _last_evaluation(row: dict[str, Any]) -> bool:
    return bool(row.get("final")) and "eval/return" in row


def test_extending_a_finished_run(tiny: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    api.train(tiny(overrides={"train.steps": 50}), run)
    assert Run.open(run).metrics()[-1]["final"] is True
    again = api.resume(run, steps=100)
    assert again.step >= 100
    finals = [row["step"] for row in Run.open(run).metrics() if _last_evaluation(row)]
    assert finals == [again.step]
    assert api.resolve(config=run / "config.yaml").train.steps == 100


@pytest.mark.parametrize("steps", [50, 100])  # before and after the first scheduled one
def test_a_missing_last_evaluation_is_made_up_for(tiny: Any, tmp_path: Path, steps: int) -> None:
    run = tmp_path / "run"
    done = api.train(tiny(overrides={"train.steps": steps}), run)
    api.resume(run)  # drops the evaluation that only the end called for
    finals = [row["step"] for row in Run.open(run).metrics() if _last_evaluation(row)]
    assert finals == [done.step]


def _damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "flipped":
        data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    if how == "missing":
        file.unlink()


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("agent/model.safetensors", "flipped", "its content does not match its sha256"),
        ("collector.safetensors", "truncated", "is damaged: it has"),
        ("clock.json", "missing", "is missing"),
        ("manifest.json", "truncated", "it is not JSON"),
    ],
)
def test_damaged_checkpoint_falls_back_and_loses_nothing(
    tiny: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    how: str,
    said: str,
    assert_same_run: Any,
) -> None:
    config = tiny(overrides={"train.eval_every": 0, "train.steps": 60})
    whole, run = tmp_path / "whole", tmp_path / "run"
    done = api.train(config, whole)
    api.train(config, run)
    newest = Run.open(run).checkpoint_path(done.step)
    _damage(newest / name, how)
    with caplog.at_level(logging.INFO):
        again = api.resume(run)
    assert again.step == done.step
    assert f"checkpoint {newest.name} is not used: " in caplog.text
    assert said in caplog.text
    assert newest.with_name(f"{newest.name}.damaged").is_dir()
    assert_same_run(whole, run, done.step)


def test_without_any_intact_checkpoint_the_run_begins_again(
    tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, assert_same_run: Any
) -> None:
    config = tiny(overrides={"train.steps": 60})
    whole, run = tmp_path / "whole", tmp_path / "run"
    done = api.train(config, whole)
    api.train(config, run)
    for step in Run.open(run).ticks():
        _damage(Run.open(run).checkpoint_path(step) / "meters.safetensors", "flipped")
    with caplog.at_level(logging.INFO):
        api.resume(run)
    assert "resumed from the beginning: there is no intact checkpoint" in caplog.text
    assert_same_run(whole, run, done.step)


def test_an_episode_that_cannot_be_replayed_begins_anew(
    tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny("gym/walk_env:Drifting", {"train.steps": 60, "train.envs": 3})
    api.train(config, tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        again = api.resume(tmp_path / "run", steps=100, trust=("walk_env",))
    assert again.step >= 100
    assert "did not come back to where it was by replaying" in caplog.text
    assert "a new episode begins" in caplog.text


def test_an_environment_that_cannot_be_saved_begins_a_new_episode(
    tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.train(tiny("walk/any", {"train.steps": 50}), tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        again = api.resume(tmp_path / "run", steps=90)
    assert again.step >= 90
    assert "The environment cannot be saved in mid-episode: new episodes begin" in caplog.text


def test_only_the_last_and_the_best_checkpoints_stay(tiny: Any, tmp_path: Path) -> None:
    api.train(tiny(overrides={"train.keep_last": 1, "train.checkpoint_every": 20}), tmp_path / "r")
    run = Run.open(tmp_path / "r")
    scores = {row["step"]: row["eval/return"] for row in run.metrics() if "eval/return" in row}
    best = max((s for s in run.ticks() if s in scores), key=lambda step: scores[step])
    assert scores[best] == max(score for step, score in scores.items() if step > 0)
    assert run.ticks() == sorted({best, max(run.ticks())})
    assert run.best_tick() == best


def test_what_resume_and_out_refuse(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"is not a run: it has no config\.yaml"):
        api.resume(tmp_path)
    api.train(tiny(overrides={"train.steps": 30}), tmp_path / "run")
    with pytest.raises(StorageError, match=r"is not empty\. Choose another --out, or continue"):
        api.train(tiny(), tmp_path / "run")
    with pytest.raises(StorageError, match=r"has no intact checkpoint of step 7\. It has: 3\d"):
        api.load_agent(tmp_path / "run", step=7)
    for weights in (tmp_path / "run").glob("checkpoints/*/agent/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(StorageError, match=r"has no intact checkpoint\. It has: none"):
        api.load_agent(tmp_path / "run")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="RLIMIT_FSIZE is POSIX")
def test_full_disk_keeps_the_previous_checkpoint(
    site: Any, tiny: Any, tmp_path: Path, assert_same_run: Any
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    config = tiny(overrides={"train.eval_every": 0, "model.width": 64})
    done = api.train(config, whole)
    api.train(config.with_steps(50), run)
    before = Run.open(run).ticks()
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "from worldflux.cli import main\nmain()"
    )
    full = subprocess.run(
        [sys.executable, "-c", code, "train", "--resume", str(run), "--steps", "120"],
        env=site.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert full.returncode == 2, full.stderr
    assert "could not be written" in full.stderr
    assert f"The checkpoint of step {before[-1]} is intact" in full.stderr
    assert f"worldflux train --resume {run}" in full.stderr
    assert Run.open(run).ticks() == before
    api.resume(run, steps=120)
    assert_same_run(whole, run, done.step)

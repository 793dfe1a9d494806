"""The subcommands as a user types them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from worldflux.cli.app import build_app
from worldflux.errors import ConfigError, UnknownIdError
from worldflux_train import cli

TRAIN = ["train", "tiny:wide", "--env", "gym/CartPole-v1"]
QUICK = ["--set", "train.log_every=20", "--set", "train.replay_capacity=500"]


def _call(*arguments: object) -> str:
    result = CliRunner().invoke(build_app(), [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_train_eval_imagine_report(site: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = _call(*TRAIN, "--steps", 40, *QUICK, "--out", run)
    assert f"Report: {run}/report.html" in said
    assert "evaluation: return" in said
    assert len(list((run / "videos").glob("imagined-*.mp4"))) == 1
    assert "over 2 episodes" in _call("eval", run, "--episodes", 2)
    assert _call("eval", run, "--episodes", 2) == _call("eval", run, "--episodes", 2)
    said = _call("imagine", run, "--horizon", 5, "--format", "gif", "--episodes", 2)
    assert "state: error" in said
    assert "steps ahead" in said
    assert next((run / "videos").glob("*.gif")).stat().st_size > 1000
    (run / "report.html").unlink()
    _call("report", run)
    assert (run / "report.html").is_file()
    newest = max(int(folder.name) for folder in (run / "checkpoints").iterdir())
    assert f"resumed from step {newest}" in _call("train", "--resume", run, "--steps", 50)
    _call("train", "--config", run / "config.yaml", "--steps", 30, "--out", tmp_path / "again")


def test_mistakes_on_the_command_line(site: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--resume takes the run's own configuration: only"):
        _call("train", "--resume", tmp_path, "--set", "train.seed=1")
    with pytest.raises(ConfigError, match="train has no key 'sede'. Did you mean 'seed'"):
        _call(*TRAIN, "--set", "train.sede=1")
    with pytest.raises(UnknownIdError, match="Did you mean 'tiny'"):
        _call("train", "tny", "--env", "gym/CartPole-v1")
    failed = site.cli(*TRAIN, "--set", "train.envs=-1", "--out", tmp_path / "run")
    assert failed.returncode == 2
    said = "Error: train.envs: Input should be greater than 0, got -1. It is: Environments stepped"
    assert failed.stderr == f"{said} together.\n"
    assert not (tmp_path / "run").exists()


def test_no_option_replaces_another_in_silence(site: Any, tmp_path: Path) -> None:
    said = CliRunner().invoke(build_app(), [*TRAIN, "--env", "wf/catch"])
    assert said.exit_code == 2
    assert "--env takes one value, and is given 2 times. Give it once." in said.output
    said = CliRunner().invoke(
        build_app(), ["data", "collect", "wf/catch", "x", "--seed", "1", "--seed", "2"]
    )
    assert "--seed takes one value, and is given 2 times." in said.output
    for typed, text in {
        ("--device", "cpu", "--set", "train.device=auto"): "--device cpu and --set train.device=",
        ("--steps", "9", "--set", "train.steps=8"): "both set train.steps. Give one of them",
        ("--set", "env.id=wf/catch"): "--env gym/CartPole-v1 and --set env.id=wf/catch both set",
        ("--set", "train.seed=1", "--set", "train.seed=2"): "--set train.seed=... is given twice",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(text)):
            _call(*TRAIN, *typed)
    with pytest.raises(ConfigError, match=r"--config a=\.\.\. is given twice"):
        _call("compare", "a=tiny", "--env", "wf/catch", "--steps", 9, "--out", tmp_path,
              "--config", "a=x", "--config", "a=y")  # fmt: skip


def test_runs_go_into_a_folder_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = cli._free_folder("tiny:wide", "gym/CartPole-v1")
    assert first == Path("runs/tiny-wide-gym-CartPole-v1")
    first.mkdir(parents=True)
    assert cli._free_folder("tiny:wide", "gym/CartPole-v1").name == f"{first.name}-2"

"""Runs of two processes that torchrun starts: what they agree on, save and go on from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from worldflux.errors import StorageError
from worldflux.runs import Run
from worldflux_train import api

pytestmark = pytest.mark.slow  # processes
SETTINGS = {
    "train.steps": 160, "train.eval_every": 80, "train.eval_episodes": 3, "train.log_every": 40,
    "train.checkpoint_every": 80, "train.replay_capacity": 1000, "train.threads": 1,
    "train.device": "cpu", "train.envs": 2, "train.round": 5,
}  # fmt: skip


def together(site: Any, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node 2 -m worldflux train ...` to its end."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *launch, "-m", "worldflux", "train", *map(str, arguments)],
        env=site.environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def trained(site: Any, out: Path, **changed: object) -> Run:
    pairs = {**SETTINGS, **{f"train.{name}": value for name, value in changed.items()}}
    settings = [part for key, value in pairs.items() for part in ("--set", f"{key}={value}")]
    done = together(site, "tiny", "--env", "gym/walk_env:Walk", "--out", out, *settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return Run.open(out)


@pytest.fixture(scope="module")
def whole(site: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(site, tmp_path_factory.mktemp("ranks") / "whole")


def test_steps_of_all_ranks_are_counted_and_each_has_its_own_episodes(whole: Run) -> None:
    ticks, rows = whole.ticks(), whole.metrics()
    # Two processes with two environments each: rounds of 20 steps, less the ends of episodes.
    assert 160 <= ticks[-1] < 180
    last = rows[-1]
    assert last["final"] is True and last["agent_steps"] == ticks[-1]
    assert len([row for row in rows if "eval/return" in row]) == 3  # rank 0 alone judges
    folder = whole.checkpoint_path(ticks[-1])
    one, other = (folder / name for name in (".", "rank1"))
    assert (folder / "agent").is_dir() and not (other / "agent").exists()
    generators = [load_file(at / "updater.safetensors") for at in (one, other)]
    assert not torch.equal(generators[0]["generator"], generators[1]["generator"])
    assert torch.equal(generators[0]["shared"], generators[1]["shared"])
    sources = [(at / "source" / "replay.json").read_bytes() for at in (one, other)]
    assert sources[0] != sources[1]
    assert not list(whole.checkpoints_path.glob(".*.tmp"))


def test_two_ranks_resume_bit_for_bit(site: Any, whole: Run, tmp_path: Path) -> None:
    parts = trained(site, tmp_path / "parts", steps=75)
    assert parts.ticks()[-1] < whole.ticks()[-1]
    steps = ("--steps", SETTINGS["train.steps"])
    done = together(site, "--resume", parts.path, *steps, "--trust", "walk_env")
    assert done.returncode == 0, done.stderr[-3000:]
    tick = whole.ticks()[-1]
    assert parts.ticks()[-1] == tick
    left, right = (run.checkpoint_path(tick) for run in (whole, parts))
    names = sorted(file.relative_to(left) for file in left.rglob("*.safetensors"))
    assert sum("rank1" in str(name) for name in names) >= 3
    for name in names:
        one, two = load_file(left / name), load_file(right / name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name


def test_one_process_says_how_to_go_on_with_a_run_of_two(whole: Run, site: Any) -> None:
    with pytest.raises(StorageError, match="written by 2 processes, this run has 1.*torchrun"):
        api.resume(whole.path, trust=("walk_env",))
    assert len(whole.ticks()) == len(list(whole.intact_checkpoints())), "nothing is set aside"
    agent = api.load_agent(whole.path, trust=("walk_env",))
    assert sum(parameter.numel() for parameter in agent.parameters()) > 0


def test_a_fault_before_the_run_leaves_no_folder(site: Any, tmp_path: Path) -> None:
    done = together(site, "tiny", "--env", "gym/walk_env:Wlak", "--out", tmp_path / "run")
    assert done.returncode != 0 and "Wlak" in done.stdout + done.stderr
    assert not (tmp_path / "run").exists()

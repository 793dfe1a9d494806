"""kill -9 at random moments, in mid-episode and while a checkpoint is written, loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worldflux.atomic import write_file
from worldflux.runs import Run
from worldflux_train import api

# Imports once, then forks a fresh process per attempt and kills it: after a random delay, or as
# soon as a checkpoint's draft is seen. Prints the moment of each kill.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from worldflux_train import api, trainer

run, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
choose = random.Random(seed)

def child():
    try:
        api.resume(run, trust=("walk_env",))
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)

def drafting():
    return any(run.glob("checkpoints/.*.tmp/*"))

def wait(pid, until):
    while not until():
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            print("ended", os.waitstatus_to_exitcode(status), flush=True)
            sys.exit(os.waitstatus_to_exitcode(status))
        time.sleep(0.0005)

for attempt in range(kills):
    before = (run / "metrics.jsonl").stat().st_size if (run / "metrics.jsonl").exists() else 0
    pid = os.fork() or child()
    metrics = run / "metrics.jsonl"
    if attempt % 2:
        wait(pid, drafting)
        time.sleep(choose.uniform(0, 0.02))
    else:
        deadline = time.monotonic() + choose.uniform(0.1, 0.6)
        wait(pid, lambda: time.monotonic() > deadline)
    writing = drafting()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print("killed", "writing" if writing else "running", flush=True)
pid = os.fork() or child()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize(
    ("env", "overrides"),
    [
        ("gym/CartPole-v1", {"train.envs": 2}),
        ("gym/walk_env:Walk", {"train.replay_storage": "disk"}),
    ],
)
def test_killed_run_ends_as_the_unbroken_one(
    site: Any, tiny: Any, tmp_path: Path, env: str, overrides: dict[str, Any], assert_same_run: Any
) -> None:
    config = tiny(
        env,
        {"train.steps": 300, "train.eval_every": 100, "train.checkpoint_every": 30, **overrides},
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = api.train(config, whole)
    run = Run.create(broken)
    write_file(run.config_path, config.to_yaml().encode())
    killer = subprocess.run(
        [sys.executable, "-c", KILLER, str(broken), "4", "1"],
        env=site.environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert killer.returncode == 0, killer.stdout + killer.stderr
    assert killer.stdout.count("killed") == 4, killer.stdout
    assert "killed writing" in killer.stdout
    assert "killed running" in killer.stdout
    assert_same_run(whole, broken, done.step)


def test_ctrl_c_saves_and_exits_cleanly(
    site: Any, tiny: Any, tmp_path: Path, assert_same_run: Any
) -> None:
    config = tiny(overrides={"train.steps": 100_000, "train.eval_every": 0})
    folder = tmp_path / "run"
    write_file(Run.create(folder).config_path, config.to_yaml().encode())
    command = site.command("train", "--resume", folder)
    process = subprocess.Popen(
        command, env=site.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = folder / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size > 2000):
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    process.send_signal(2)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    run = Run.open(folder)
    step = run.ticks()[-1]
    assert f"Interrupted at step {step:,} and saved. Continue with: worldflux train" in out
    assert "Traceback" not in err
    # What was measured after the last round is in the checkpoint: resuming repeats nothing.
    last = max(row["step"] for row in run.metrics())
    assert last <= step
    again = api.resume(folder, steps=step + 40)
    whole = api.train(config.with_steps(step + 40), tmp_path / "whole")
    assert_same_run(whole.run.path, folder, again.step)

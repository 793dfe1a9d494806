"""A user's file type-checks strictly under mypy and pyright: what is created has its methods."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [str(path) for path in sorted(ROOT.glob("packages/*/src"))]
PACKAGES = [entry for entry in sys.path if entry.endswith("site-packages")]
pytestmark = pytest.mark.slow

USER = """
import torch
import worldflux
import worldflux_train
from worldflux import ActionPayload, Agent, State, WorldModel

obs = {"image": torch.zeros(1, 3, 64, 64, dtype=torch.uint8)}
first = torch.ones(1, dtype=torch.bool)
agent = worldflux.create_agent("ring", action_dim=3)
action, memory = agent.act(obs, None, first)
payload: ActionPayload = action
state: State = memory
seen: State = worldflux.from_pretrained("runs/x", kind=WorldModel).encode(obs)
again: ActionPayload = worldflux.from_pretrained("runs/x", kind=Agent).act(obs, None, first)[0]
anything = worldflux.from_pretrained("runs/x")
anything.encode(obs)
env = worldflux.make_env("wf/catch")
shown, info = env.reset(seed=0)
shown, reward, ended, cut, info = env.step(0)
world = worldflux.create_world_model("ring", action_dim=3)
imagined: State = world.rollout(world.encode(obs), torch.zeros(5, 1, 3)).states[-1]
trained = worldflux_train.load_agent("runs/x")
chosen: ActionPayload = trained.act(obs, None, first)[0]
worldflux_train.train(worldflux_train.resolve("ring", "wf/catch"), "runs/x")
"""
WRONG = "import worldflux\n\ntext: str = worldflux.create_agent('ring').act({}, None, 3)\n"


def mypy(folder: Path) -> str:
    pytest.importorskip("mypy", reason="needs mypy")
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\nfollow_imports = silent\n")
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(SOURCES)}
    command = [sys.executable, "-m", "mypy", "."]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    return done.stdout + done.stderr if done.returncode else ""


def pyright(folder: Path) -> str:
    path = os.pathsep.join([*(f"{entry}/../../../bin" for entry in sys.path), os.environ["PATH"]])
    program = shutil.which("pyright", path=path)
    if program is None:
        pytest.skip("needs pyright")
    settings = {"typeCheckingMode": "strict", "extraPaths": [*SOURCES, *PACKAGES]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run([program], cwd=folder, capture_output=True, text=True, timeout=300)
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_users_file_is_accepted_and_a_wrong_one_refused(checker, tmp_path):
    (tmp_path / "mine.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(WRONG)
    found = checker(tmp_path)  # both in one run: it takes a minute
    assert "mine.py:" not in found
    assert "wrong.py:3" in found and "str" in found and "Tensor" in found

"""Every python block of the README and the documentation passes mypy and pyright, both strict.

The blocks of a page are one module, as a reader would have them in a file; blocks that are files
lie where they say. The checkers see the packages as a user's editor does: installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "packages/*/README.md", "examples/*/README.md")
    for path in ROOT.glob(pattern)
)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (?:\S+/src/)?(\S+/\S+\.py)\n")


def write_module(page: Path, folder: Path) -> bool:
    """The page's blocks as a module under a name of its own, each on the lines it has there."""
    text, lines = page.read_text(), []
    for block in FENCE.finditer(text):
        language, code = block.groups()
        if language != "python":
            continue
        if named := FILE.match(code):
            path = folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
            (path.parent / "__init__.py").touch()
            (path.parent / "py.typed").touch()
            continue
        first = text.count("\n", 0, block.start(2))
        lines += [""] * (first - len(lines)) + code.splitlines()
    name = "_".join(page.relative_to(ROOT).with_suffix("").parts).replace("-", "_").lower()
    if lines:
        (folder / f"{name}.py").write_text("\n".join(lines) + "\n")
    return bool(lines)


# What an editor has to know of the library in somebody's own file, and what it has to refuse.
USERS_FILE = """
from typing import Any, assert_type

import torch
from numpy.typing import NDArray
from torch import Tensor

import worldflux
from worldflux import ActionPayload, Agent, State, WorldModel
from worldflux_train import load_agent

agent = worldflux.create_agent("dreamerv3:size1m", obs_shape=(4,), action_dim=2)
obs, first = {"state": torch.zeros(1, 4)}, torch.ones(1, dtype=torch.bool)
action, memory = agent.act(obs, None, first)
assert_type(action, ActionPayload)
assert_type(action.require(), Tensor)
assert_type(load_agent("runs/x"), Agent)
model = worldflux.from_pretrained("runs/x", kind=WorldModel)
assert_type(model, WorldModel)
assert_type(model.encode(obs), State)
assert_type(model.rollout(model.encode(obs), torch.zeros(5, 1, 2)).require("rewards"), Tensor)
seen, info = worldflux.make_env("gym/CartPole-v1").reset(seed=0)
assert_type(seen["state"], NDArray[Any])
many, infos = worldflux.make_vec_env("gym/CartPole-v1", 2).reset(seed=0)
print(worldflux.from_pretrained("runs/x").encode(obs))
assert_type(many["state"], NDArray[Any])
assert_type(worldflux.__version__, str)
"""
MISTAKES = {  # a line, and what both checkers call it by
    "import worldflux; worldflux.create_agnet('ring')": "create_agnet",
    "import worldflux_train; worldflux_train.trian": "trian",
    "import worldflux; worldflux.create_agent('ring').act()": "obs",
    "import worldflux; worldflux.make_env(3)": "str",
    "import worldflux.planning; worldflux.planning.create_planer": "create_planer",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with a module for every page, and files of a user's."""
    folder = tmp_path_factory.mktemp("blocks")
    assert [page for page in PAGES if write_module(page, folder)]
    (folder / "users_file.py").write_text(USERS_FILE)
    for number, code in enumerate(MISTAKES):
        (folder / f"mistake{number}.py").write_text(f"{code}\n")
    return folder


def mypy(folder: Path) -> list[str]:
    (folder / "mypy.ini").write_text("[mypy]\nstrict = True\nplugins = pydantic.mypy\n")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-error-summary", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def pyright(folder: Path) -> list[str]:
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return [
        f"{Path(found['file']).name}:{found['range']['start']['line'] + 1}: {found['message']}"
        for found in json.loads(done.stdout)["generalDiagnostics"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_the_pages_and_a_users_file_pass_and_mistakes_do_not(checker, written):
    found = checker(written)
    for number, (code, named) in enumerate(MISTAKES.items()):
        own = [line for line in found if line.startswith(f"mistake{number}.py")]
        assert any(named in line for line in own), f"{code} is not refused: {own}"
    assert [line for line in found if not line.startswith("mistake")] == []

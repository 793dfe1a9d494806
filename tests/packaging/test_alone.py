"""Each distribution installs and passes its own tests with only core beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TESTED = {
    "worldflux-core": "tests/core",
    "worldflux-train": "tests/train",
    "worldflux-envs": "tests/envs",
    "worldflux-play": "tests/play",
    "worldflux-dreamer": "tests/dreamer",
    "worldflux-tdmpc2": "tests/tdmpc2",
    "worldflux-jepa": "tests/jepa",
    "worldflux-diamond": "tests/diamond",
}
TOOLS = ("pytest>=8", "hypothesis", "httpx")


def run(*command: str, cwd: Path = ROOT) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("name", TESTED)
def test_a_distribution_stands_alone(name, tmp_path):
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    python = str(tmp_path / "venv" / "bin" / "python")
    wanted = dict.fromkeys([str(ROOT / "packages/worldflux-core"), str(ROOT / "packages" / name)])
    run(python, "-m", "pip", "install", "-q", "-c", "constraints.txt", *wanted, *TOOLS)
    run(python, "-m", "pytest", "-q", TESTED[name])

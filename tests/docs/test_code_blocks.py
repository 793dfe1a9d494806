"""Every code block of the README and the documentation runs.

The python blocks of a file run one after another in one process, as a reader would type them; a
block that begins with the comment `# name/of/a/file` is that file, and a distribution written so
is installed. A bash block runs in a shell. Training commands get a small budget, `pip install`
lines resolve against wheels built from this checkout.
"""

from __future__ import annotations

import os
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
BUDGET = "--steps 300 --set train.eval_episodes=1"


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(page.read_text()) if found == language]


def having(language: str) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in PAGES if blocks(page, language)]


def run(command: list[str], folder: Path, **extra: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **extra}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_pages_have_blocks():
    assert "README.md" in having("python") and "README.md" in having("bash")


FILE = re.compile(r"# (\S+/\S+\.(?:py|toml))\n")


def write_files(page: Path, folder: Path) -> list[str]:
    """Write the blocks that are files; the python blocks among the others."""
    rest = []
    for language, code in FENCE.findall(page.read_text()):
        if named := FILE.match(code):
            path = folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
        elif language == "python":
            rest.append(code)
    return rest


def install(project: Path, site: Path) -> None:
    """Install a page's distribution into the folder `site`, as pip does for a reader."""
    offline = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    run([sys.executable, "-m", "pip", "install", *offline, str(project)], project)


@pytest.mark.parametrize("page", having("python"))
def test_python_blocks(page, tmp_path):
    code = "\n".join(write_files(ROOT / page, tmp_path))
    site = tmp_path / "site"
    for project in tmp_path.glob("*/pyproject.toml"):
        install(project.parent, site)
    run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(site))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory) -> Path:
    """Wheels of this checkout's distributions."""
    folder = tmp_path_factory.mktemp("wheels")
    for package in sorted((ROOT / "packages").iterdir()):
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
        run([*build, str(package)], ROOT)
    return folder


def affordable(code: str, folder: Path) -> str:
    """The block with a small training budget; what sets up a new machine is not repeated."""
    code = re.sub(
        r"python3 -m venv \.venv && \.venv/bin/pip install -q nox && \.venv/bin/", "", code
    )
    # a key that a line sets itself is not given twice
    own = r"^(?!.*--resume)(.*)--steps \d+(.*eval_episodes)"
    code = re.sub(own, r"\1--steps 300\2", code, flags=re.MULTILINE)
    code = re.sub(
        r"^(?!.*--resume)(?!.*eval_episodes)(.*)--steps \d+",
        rf"\1{BUDGET}",
        code,
        flags=re.MULTILINE,
    )
    here = "-db none --no-install"  # what is installed here
    code = re.sub(r"(nox -s train)\b", rf"\1 {here} -- {BUDGET} --out {folder}/run", code)
    return re.sub(r"nox -s tests", "pytest --collect-only -q tests", code)


@pytest.mark.slow
@pytest.mark.parametrize("page", having("bash"))
def test_bash_blocks(page, tmp_path, wheels):
    write_files(ROOT / page, tmp_path)
    for code in blocks(ROOT / page, "bash"):
        inside = ROOT if "nox" in code else tmp_path
        run(
            ["bash", "-euo", "pipefail", "-c", affordable(code, tmp_path)],
            inside,
            PIP_FIND_LINKS=str(wheels),
            PIP_NO_INDEX="1",
            PIP_NO_DEPS="1",
            PIP_DRY_RUN="1",
        )

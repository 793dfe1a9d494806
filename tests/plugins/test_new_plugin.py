"""What `worldflux new-plugin` writes installs, and passes its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worldflux.cli.new_plugin import write_plugin
from worldflux.errors import ConfigError, StorageError

RING = Path(__file__).parents[2] / "examples" / "worldflux-ring"
GENERATED = {"src", "tests", "README.md", "pyproject.toml"}


def texts(folder: Path) -> dict[str, str]:
    files = (path for part in GENERATED for path in [folder / part, *(folder / part).rglob("*")])
    kept = (p for p in files if p.is_file() and p.suffix in (".py", ".md", ".toml"))
    return {str(path.relative_to(folder)): path.read_text() for path in kept}


def test_the_example_is_what_new_plugin_writes(tmp_path: Path) -> None:
    assert texts(write_plugin("ring", tmp_path / "ring")) == texts(RING)


def test_a_new_plugin_installs_and_passes_its_tests(site: Any, tmp_path: Path) -> None:
    made = site.cli("new-plugin", "My_Model", "--out", str(tmp_path / "mine"))
    assert made.returncode == 0, made.stderr
    assert f"pip install -e {tmp_path / 'mine'}" in made.stdout
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*pip, "--no-compile", "--target", str(site.folder), str(tmp_path / "mine")],
        check=True,
        timeout=120,
    )
    assert "my-model" in site.cli("models").stdout
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path / "mine",
        env={**os.environ, "PYTHONPATH": str(site.folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("name", ["", "9ring", "a b", "ring.x", "-ring", "ring-", "ring/.."])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a model family: use letters, digits"):
        write_plugin(name, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="already exists"):
        write_plugin("ring", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

"""What the wheels hold: everything that is needed, and nobody else's files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = sorted([*(ROOT / "packages").iterdir(), *(ROOT / "examples").iterdir()])


@pytest.fixture(scope="module", params=PROJECTS, ids=lambda path: path.name)
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in one distribution's wheel."""
    target = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(target), str(request.param)], check=True, timeout=120)
    [built] = target.glob("*.whl")
    assert built.name.startswith(request.param.name.replace("-", "_"))
    return set(zipfile.ZipFile(built).namelist())


def test_a_wheel_owns_one_import_package(wheel: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel if ".dist-info/" not in name}
    own = {top for top in tops if not top.endswith(".py")}
    assert len(own) == 1
    assert tops - own == ({"_worldflux_guard.py"} if own == {"worldflux"} else set())


def test_everything_of_the_source_is_in_the_wheel(wheel: set[str]) -> None:
    [own] = {name.split("/")[0] for name in wheel if name.endswith("/__init__.py")} & {
        path.name for project in PROJECTS for path in (project / "src").iterdir()
    }
    [source] = [p / "src" for p in PROJECTS if (p / "src" / own).is_dir()]
    files = {str(path.relative_to(source)) for path in (source / own).rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name and "_cache" not in name}
    assert files <= wheel


def test_a_wheel_brings_no_tests(wheel: set[str]) -> None:
    assert not [name for name in wheel if name.startswith("tests/")]

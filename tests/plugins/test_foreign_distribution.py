"""The unrelated distribution `worldflux` is refused by core and by every official plugin."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WAY_OUT = (
    "is not WorldFlux: it is an unrelated project that owns the same import name, and its files "
    "and ours overwrite each other. Remove it and restore ours:\n"
    "    pip uninstall worldflux\n"
    "    pip install --force-reinstall --no-deps worldflux-core"
)


def official_plugins() -> list[str]:
    """The entry-point modules of all our distributions."""
    modules: set[str] = set()
    for project in ROOT.glob("packages/*/pyproject.toml"):
        groups = tomllib.loads(project.read_text())["project"].get("entry-points", {})
        modules |= {module for entries in groups.values() for module in entries.values()}
    return sorted(modules)


def metadata_only(site: Any) -> None:
    site.install("worldflux", {}, {}, version="0.1.2")


def test_import_is_refused_with_the_way_out(site: Any) -> None:
    metadata_only(site)
    done = site.run("-c", "import worldflux")
    assert done.returncode == 1
    info = site.folder / "worldflux-0.1.2.dist-info"
    assert f"ImportError: The distribution 'worldflux' at {info} {WAY_OUT}" in done.stderr


def test_our_distributions_are_not_mistaken_for_it(site: Any) -> None:
    site.install("worldflux-tools", {}, {})
    site.install("worldfluxx", {}, {})
    assert site.python("import worldflux; print('fine')") == "fine"


@pytest.mark.parametrize("name", ["worldflux.egg-info", "WorldFlux-0.1.2-py3.11.egg-info"])
def test_older_metadata_counts_too(site: Any, name: str) -> None:
    (site.folder / name).mkdir()
    assert WAY_OUT in site.run("-c", "import worldflux").stderr


@pytest.mark.parametrize("module", official_plugins())
@pytest.mark.parametrize("theirs", ["their_own = True", "raise RuntimeError('theirs')"])
def test_plugins_refuse_it_when_core_is_overwritten(site: Any, module: str, theirs: str) -> None:
    site.install("worldflux", {}, {"worldflux/__init__.py": theirs}, version="0.1.2")
    done = site.run("-c", f"import {module}")
    assert done.returncode == 1
    assert WAY_OUT in done.stderr


def test_a_real_installation_over_ours_is_refused(tmp_path: Path) -> None:
    """pip installs a package of that name over core's files, as it happens to users."""
    project = tmp_path / "theirs"
    (project / "worldflux").mkdir(parents=True)
    (project / "worldflux" / "__init__.py").write_text("THEIRS = True\n")
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "worldflux"\nversion = "0.1.2"\n'
    )
    target = tmp_path / "site"
    for source_tree in (ROOT / "packages" / "worldflux-core", project):
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
        options = ["--no-compile", "--upgrade", "--target", str(target)]
        subprocess.run([*pip, *options, str(source_tree)], check=True, timeout=120)
    assert (target / "worldflux" / "__init__.py").read_text() == "THEIRS = True\n"
    done = subprocess.run(
        [sys.executable, "-c", "import _worldflux_guard"],
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert WAY_OUT in done.stderr

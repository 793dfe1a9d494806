"""Real installed distributions, small enough to read, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

FAMILY = """
from worldflux.config import Config
from worldflux.hookspecs import hookimpl
from worldflux.specs import ModelSpec

class FakeConfig(Config):
    units: int = 4

@hookimpl
def worldflux_models():
    return [
        ModelSpec(
            family={family!r}, config=FakeConfig, presets={{"small": FakeConfig()}},
            default_preset="small", model={model!r}, aliases={aliases!r}, description={about!r},
        )
    ]
"""


@dataclass
class Site:
    """A folder of installed distributions and processes that see it."""

    folder: Path

    def install(
        self,
        name: str,
        entry_points: Mapping[str, Mapping[str, str]],
        files: Mapping[str, str],
        *,
        version: str = "1.0",
        requires: Sequence[str] = (),
    ) -> None:
        """Write the files and the metadata that `pip install` would leave."""
        for path, text in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(dedent(text), "utf-8")
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n", "utf-8")
        (info / "RECORD").write_text("\n".join(f"{path},," for path in files), "utf-8")
        text = ""
        for group, entries in entry_points.items():
            text += f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items())
        (info / "entry_points.txt").write_text(text, "utf-8")

    def family(
        self,
        name: str,
        module: str,
        *,
        family: str | None = None,
        aliases: tuple[str, ...] = (),
        requires: Sequence[str] = ("worldflux-core",),
        names: Sequence[str] = (),
        about: str = "fake",
        model: str = "nowhere:Model",
        before: str = "",
    ) -> None:
        """A working model family `family`; `before` is code that runs ahead of it."""
        family = family or module
        text = FAMILY.format(family=family, aliases=aliases, about=about, model=model)
        entries = {entry: module for entry in (names or (family,))}
        files = {f"{module}.py": before + text}
        self.install(name, {"worldflux.models": entries}, files, requires=requires)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`python ...` with this folder first on the path."""
        return subprocess.run(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
            | environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def python(self, code: str, **environment: str) -> str:
        """What `code` prints; fails with its error output if it raises."""
        done = self.run("-c", dedent(code), **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The `worldflux` command."""
        return self.run("-c", "from worldflux.cli import main; main()", *arguments, **environment)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)

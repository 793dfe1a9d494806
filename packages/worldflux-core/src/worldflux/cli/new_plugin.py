"""`worldflux new-plugin NAME`: writes a complete model family that installs and passes its checks.

`examples/worldflux-ring` is what it writes for `ring`; a test keeps the two equal.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from worldflux.errors import ConfigError
from worldflux.ids import normalize

_FILES = {
    "pyproject.toml.in": "pyproject.toml",
    "README.md.in": "README.md",
    "package.py.in": "src/{package}/__init__.py",
    "py.typed.in": "src/{package}/py.typed",
    "plugin.py.in": "src/{package}/plugin.py",
    "config.py.in": "src/{package}/config.py",
    "world_model.py.in": "src/{package}/world_model.py",
    "agent.py.in": "src/{package}/agent.py",
    "test_family.py.in": "tests/test_{module}.py",
}


def new_plugin(
    name: Annotated[str, typer.Argument(help="The family's id, such as 'ring'.")],
    out: Annotated[Path | None, typer.Option(help="New folder; default worldflux-NAME.")] = None,
) -> None:
    """Write a plugin package with a small world model to start from."""
    folder = write_plugin(name, out or Path(f"worldflux-{normalize(name)}"))
    typer.echo(f"Wrote {folder}. Next:\n  pip install -e {folder}\n  pytest {folder}/tests")


def write_plugin(name: str, folder: Path) -> Path:
    """Write the plugin `name` into the new folder `folder`."""
    from importlib import resources

    from worldflux import atomic

    names = _names(name)
    with atomic.new_folder(folder) as draft:
        for source, target in _FILES.items():
            text = (resources.files("worldflux.cli") / "template" / source).read_text("utf-8")
            path = draft / target.format_map(names)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template(text).substitute(names), "utf-8")
    return folder


def _names(name: str) -> dict[str, str]:
    family = normalize(name)
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", family):
        raise ConfigError(
            f"{name!r} is no name for a model family: use letters, digits and single dashes, "
            "beginning with a letter, such as 'ring' or 'my-model'."
        )
    module = family.replace("-", "_")
    major, minor = version("worldflux-core").split(".")[:2]
    return {
        "family": family,
        "module": module,
        "package": f"worldflux_{module}",
        "cls": "".join(part.capitalize() for part in family.split("-")),
        "core": f">={major}.{minor},<{major}.{int(minor) + 1}",
    }

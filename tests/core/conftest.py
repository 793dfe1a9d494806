"""A real installed distribution that offers the tiny model as family `tiny`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLUGIN = """
from worldflux.hookspecs import hookimpl
from worldflux.specs import ModelSpec
from worldflux.testing.dummies import TinyConfig, TinyModel

@hookimpl
def worldflux_models():
    return [ModelSpec(
        family="tiny", config=TinyConfig, default_preset="small",
        presets={"small": TinyConfig(), "wide": TinyConfig(width=24)},
        model="worldflux.testing.dummies:TinyModel", agent="worldflux.testing.dummies:TinyAgent",
        description="A tiny model", capabilities=TinyModel.capabilities,
    )]
"""
METADATA = (
    "Metadata-Version: 2.1\nName: worldflux-tiny\nVersion: 1.0\nRequires-Dist: worldflux-core\n"
)
ENTRY_POINTS = "[worldflux.models]\ntiny = tiny_plugin\n"


def install_tiny(site: Path) -> None:
    """Put the distribution `worldflux-tiny` into a folder that is on the path."""
    info = site / "worldflux_tiny-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "tiny_plugin.py").write_text(PLUGIN)


@pytest.fixture
def tiny_site(tmp_path) -> Path:
    """The folder of `worldflux-tiny`, for a subprocess's PYTHONPATH."""
    install_tiny(tmp_path / "site")
    return tmp_path / "site"


@contextmanager
def installed(site: Path) -> Iterator[str]:
    """The distribution in `site`, for this process."""
    from worldflux.plugins import plugins

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        plugins.cache_clear()
        yield "tiny"
    plugins.cache_clear()
    sys.modules.pop("tiny_plugin", None)


@pytest.fixture
def tiny_family(tiny_site):
    """`worldflux-tiny` installed for one test."""
    with installed(tiny_site) as family:
        yield family


@pytest.fixture(scope="module")
def tiny_family_of_a_file(tmp_path_factory):
    """`worldflux-tiny` installed for all tests of a file."""
    site = tmp_path_factory.mktemp("site")
    install_tiny(site)
    with installed(site) as family:
        yield family

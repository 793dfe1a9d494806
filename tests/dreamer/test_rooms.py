"""Who imports whom in the package: what is shared knows no family, families not each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import worldflux_dreamer.layers

ROOT = Path(worldflux_dreamer.layers.__file__).parent
FAMILIES = ("dreamerv1", "dreamerv2", "dreamerv3", "modular", "planet")
MAY_IMPORT = {"shared": set(), "latent_rssm": {"latent_rssm"}} | {
    family: {family, "latent_rssm"} for family in FAMILIES
}


def rooms_of(source: str) -> set[str]:
    """The rooms whose modules a source text names."""
    found = re.findall(r"\bworldflux_dreamer\.(\w+)", source)
    return {name for name in found if (ROOT / name).is_dir()}


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_what_it_may(room: str) -> None:
    folder = ROOT if room == "shared" else ROOT / room
    files = [path for path in folder.glob("*.py" if room == "shared" else "**/*.py")]
    assert files
    for path in files:
        beyond = rooms_of(path.read_text()) - MAY_IMPORT[room]
        assert not beyond, f"{path.relative_to(ROOT)} imports {beyond}"


def test_a_room_is_found_in_an_import() -> None:
    assert rooms_of("from worldflux_dreamer.dreamerv3.rssm import RSSM\n") == {"dreamerv3"}
    assert rooms_of("from worldflux_dreamer.layers import MLP\n") == set()

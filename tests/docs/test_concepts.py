"""What the concepts page lists is what there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from worldflux import State
from worldflux.training import Phase

PAGE = (Path(__file__).parents[2] / "docs" / "concepts.md").read_text()


def section(title: str) -> str:
    """The text under a heading, up to the next of its kind."""
    return PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def names(text: str) -> set[str]:
    """Words in code type of a table's first column."""
    cells = (line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    return {word for cell in cells for word in re.findall(r"[`.](\w+)[`(]", cell)}


def test_every_field_of_a_phase_is_in_the_table() -> None:
    assert {field.name for field in fields(Phase)} <= names(section("Phases"))


def test_every_operation_of_the_table_is_one() -> None:
    found = names(section("State"))
    assert len(found) > 10 and not [name for name in found if not hasattr(State, name)]

"""The picture of the design is what its script draws, and the modules it names are there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
MODULE = re.compile(r"\bworldflux(?:_\w+)?(?:\.\w+)+")


@pytest.fixture(scope="module")
def picture() -> Any:
    spec = importlib.util.spec_from_file_location("picture", DOCS / "architecture_picture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def missing(text: str) -> list[str]:
    """Dotted names in `text` that are no modules."""
    return [name for name in MODULE.findall(text) if not _found(name)]


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_picture_is_current(picture: Any) -> None:
    assert picture.TARGET.read_text() == picture.svg(), "run: python docs/architecture_picture.py"


def test_every_module_of_the_picture_is_there(picture: Any) -> None:
    named = MODULE.findall(picture.svg())
    assert len(named) > 20 and not missing(picture.svg())


@pytest.mark.parametrize("page", ["architecture.md", "words.md"])
def test_every_module_of_a_page_is_there(page: str) -> None:
    assert not missing((DOCS / page).read_text())


def test_a_module_that_is_gone_is_found() -> None:
    gone = missing("in worldflux.core.state, worldflux.core.gone and worldflux_old.x")
    assert gone == ["worldflux.core.gone", "worldflux_old.x"]


def test_no_two_boxes_overlap(picture: Any) -> None:
    boxes = list(picture.BOXES.values())
    for i, a in enumerate(boxes):
        assert a.x + a.w <= picture.WIDTH and a.y + a.h <= picture.HEIGHT
        assert a.h >= 22 + 18 * (len(a.lines) - 1) + 6, a.lines
        for b in boxes[i + 1 :]:
            apart = a.x + a.w <= b.x or b.x + b.w <= a.x or a.y + a.h <= b.y or b.y + b.h <= a.y
            assert apart, (a.lines[0], b.lines[0])

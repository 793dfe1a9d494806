"""Every relative link and picture of the documentation leads to a file, and to a heading in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATTERNS = ("*.md", "docs/*.md", "packages/*/README.md", "examples/*/README.md")
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
LINK = re.compile(r"\]\(([^()\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def dead_links(page: Path) -> list[str]:
    """Links that lead nowhere; addresses of other sites are not tried."""
    targets = LINK.findall(CODE.sub("", page.read_text()))
    return [link for link in targets if not re.match(r"[a-z]+:", link) and not _alive(page, link)]


def _alive(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists() or not anchor:
        return target.exists()
    return anchor in {_anchor(line) for line in target.read_text().splitlines() if line[:1] == "#"}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    assert not dead_links(page)


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# One heading\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](gone.md) [c](there.md#one-heading) [d](there.md#another) `[e](x.md)`\n"
        "[f](https://example.org/none)\n```\n[g](y.md)\n```\n![h](no.png)\n"
    )
    assert dead_links(page) == ["gone.md", "there.md#another", "no.png"]

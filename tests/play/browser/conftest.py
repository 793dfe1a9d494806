"""Chromium, and a server of the tests' run. `WORLDFLUX_PLAY_RUN` plays another run instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, Served, chromium

import worldflux


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: nox -s browser installs it"
    )
    path = chromium()
    if path is None:
        pytest.skip("there is no Chromium here: apt-get install chromium, or WORLDFLUX_CHROMIUM")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--js-flags=--expose-gc"]
        )
        yield found
        found.close()


@pytest.fixture(scope="session")
def played_run(request: pytest.FixtureRequest) -> Path:
    """The run that is played."""
    named = os.environ.get("WORLDFLUX_PLAY_RUN")
    return Path(named) if named else request.getfixturevalue("run")


@pytest.fixture(scope="session")
def served(played_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`worldflux play`, for all tests that leave it running."""
    out = tmp_path_factory.mktemp("recorded")
    found = Served(played_run, "--out", out, "--linger", 3, "--sessions", 20)
    found.start()
    yield found
    found.kill()


@pytest.fixture
def mortal(played_run: Path, tmp_path: Path) -> Iterator[Served]:
    """`worldflux play`, for a test that kills it."""
    found = Served(played_run, "--out", tmp_path)
    found.start()
    yield found
    found.kill()


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[Served]:
    """An untrained `dreamerv3:size1m` in Catch; its weights make no difference to its speed."""
    spec = worldflux.TensorSpec((), "int64", n=3, labels=("left", "stay", "right"))
    image = worldflux.TensorSpec((3, 64, 64), "uint8", low=0, high=255)
    pytest.importorskip("worldflux_dreamer", reason="dreamerv3 is in worldflux-dreamer")
    model = worldflux.create_world_model(
        "dreamerv3:size1m", obs_spec={"image": image}, action_spec={"action": spec}
    )
    folder = model.save_pretrained(tmp_path / "model")
    found = Served(folder, "--env", "wf/catch", "--out", tmp_path)
    found.start()
    yield found
    found.kill()


@pytest.fixture
def pendulum(tmp_path: Path) -> Iterator[Served]:
    """An untrained model that sees the pendulum's three numbers."""
    pytest.importorskip("worldflux_dreamer", reason="rssm is in worldflux-dreamer")
    model = worldflux.create_world_model("rssm:small", obs_shape=(3,), action_dim=1)
    folder = model.save_pretrained(tmp_path / "model")
    found = Served(folder, "--env", "wf/pendulum", "--out", tmp_path)
    found.start()
    yield found
    found.kill()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[[], Page]]:
    """`visit()`: a new page of a new visitor; none of them may have met an error."""
    contexts, pages = [], []

    def new() -> Page:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 880}))
        pages.append(Page(contexts[-1].new_page()))
        return pages[-1]

    yield new
    for context in contexts:
        context.close()
    assert not [fault for page in pages for fault in page.faults]


@pytest.fixture(scope="session")
def shots() -> Path | None:
    """Where screenshots go: `WORLDFLUX_SHOTS`, nowhere by default."""
    named = os.environ.get("WORLDFLUX_SHOTS")
    return Path(named) if named else None

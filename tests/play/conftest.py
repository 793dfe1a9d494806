"""A run of a moment on wf/catch, and the application that plays it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from play_page import TOKEN, Page
from starlette.testclient import TestClient

from worldflux_play.opened import Played, open_played
from worldflux_play.server import application
from worldflux_play.sessions import Sessions

SHORT: dict[str, Any] = {
    "train.steps": 24, "train.eval_every": 24, "train.eval_episodes": 1, "train.threads": 1,
    "train.checkpoint_every": 24, "train.replay_capacity": 500, "train.device": "cpu",
    "env.obs": "pixels", "env.size": 64, "agent.batch": 2, "agent.length": 8, "agent.prefill": 8,
    "agent.planner.horizon": 3, "agent.planner.candidates": 8, "agent.planner.elites": 2,
    "agent.planner.iterations": 1,
}  # fmt: skip


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run: `rssm:small` sees pictures of Catch and plans."""
    pytest.importorskip("worldflux_envs", reason="Catch is in worldflux-envs")
    pytest.importorskip("worldflux_dreamer", reason="rssm is in worldflux-dreamer")
    api = pytest.importorskip("worldflux_train", reason="runs are made by worldflux-train")
    folder = tmp_path_factory.mktemp("runs") / "catch"
    with torch.random.fork_rng():
        api.train(api.resolve("rssm:small", "wf/catch", overrides=SHORT), folder)
    return folder


@pytest.fixture(scope="session")
def played(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """That run, opened; what is recorded goes to a folder of its own."""
    return open_played(run, out=tmp_path_factory.mktemp("recordings"))


@pytest.fixture
def rooms(played: Played) -> Sessions:
    """The sessions of the application; nobody waits long in them."""
    return Sessions(played, most=2, most_viewers=3, linger=0.2)


@pytest.fixture
def client(played: Played, rooms: Sessions) -> Iterator[TestClient]:
    """The application, running."""
    with TestClient(application(played, TOKEN, rooms)) as found:
        yield found


@pytest.fixture
def connect(client: TestClient) -> Callable[..., AbstractContextManager[Page]]:
    """`with connect() as page`: a new connection."""

    @contextmanager
    def open_page(**options: Any) -> Iterator[Page]:
        with client.websocket_connect(f"/{TOKEN}/play", **options) as socket:
            yield Page(socket)

    return open_page

"""All sessions of a server: how many there may be, and when one is over."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from pathlib import Path

from worldflux.errors import ConfigError, WorldFluxError
from worldflux_play.messages import Hello
from worldflux_play.opened import Played
from worldflux_play.play_session import PlaySession
from worldflux_play.viewer import Viewer

logger = logging.getLogger(__name__)
MOST_FILMS = 100
"""That can be downloaded; older ones are still in their folder."""


class Full(WorldFluxError):
    """There is no room for another session or page."""


class Sessions:
    """The sessions that run. One without a page ends after `linger` seconds (time to reload)."""

    def __init__(
        self, played: Played, most: int = 8, most_viewers: int = 8, linger: float = 10.0
    ) -> None:
        self.played, self.most, self.most_viewers, self.linger = played, most, most_viewers, linger
        self.running: list[PlaySession] = []
        self.films: dict[str, Path] = {}
        """The newest films by their names: what may be downloaded."""
        self._opening = asyncio.Lock()

    async def join(self, hello: Hello) -> tuple[PlaySession, Viewer]:
        """The session that a page asks for, or a new one; `Full` where there is no room."""
        async with self._opening:
            await self.sweep()
            session, plays = self._found(hello)
            if session is None:
                session = await self._new()
            if len(session.viewers) >= self.most_viewers:
                raise Full(f"{self.most_viewers} pages look at this session already.")
            viewer = Viewer(plays)
            session.attach(viewer)
            return session, viewer

    async def sweep(self) -> None:
        """End the sessions that nobody has looked at for long enough."""
        now = time.monotonic()
        for session in list(self.running):
            if not session.viewers and now - session.alone_since >= self.linger:
                self.running.remove(session)
                await session.close()

    async def watch(self) -> None:
        """Sweep as long as the server runs."""
        while True:
            await asyncio.sleep(min(1.0, self.linger / 4 + 0.05))
            await self.sweep()

    async def close(self) -> None:
        """End them all."""
        for session in self.running:
            await session.close()
        self.running.clear()

    def _keep(self, path: Path) -> None:
        logger.info("recorded %s", path)
        if path.is_file():
            self.films[path.name] = path
        while len(self.films) > MOST_FILMS:
            self.films.pop(next(iter(self.films)))

    def _found(self, hello: Hello) -> tuple[PlaySession | None, bool]:
        for session in self.running:
            if hello.watch and hmac.compare_digest(session.watch_id, hello.watch):
                return session, False
            if hello.session and hmac.compare_digest(session.id, hello.session):
                return session, True
        if hello.watch:
            raise ConfigError("The session that this page is to watch is over.")
        return None, True

    async def _new(self) -> PlaySession:
        if len(self.running) >= self.most:
            raise Full(
                f"{self.most} sessions run already, which is the most (--sessions). Close a page; "
                f"its session ends {self.linger:g} s later."
            )
        session = PlaySession(self.played, finished=self._keep)
        await session.open()
        self.running.append(session)
        return session

"""One open page: what it is sent, in order, and never more of it than it takes."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import numpy as np

from worldflux_play.game import Shown

IN_FLIGHT = 2
"""Frames that are sent before the page says that it has shown one."""
MOST_WAITING = 64
"""Messages a page may leave unread; one that leaves more is gone."""


class Viewer:
    """The outbox of a page. Of frames only the newest waits; a slow page misses the others.

    A browser takes in whatever it is sent, and shows it late: so the page says when it has shown a
    frame, and is sent no more before.
    """

    def __init__(self, plays: bool) -> None:
        self.plays = plays
        """Whether it may play, or only watches."""
        self.gone = asyncio.Event()
        self._messages: deque[str] = deque()
        self._frame: bytes | None = None
        self._something = asyncio.Event()
        self._free = IN_FLIGHT

    def seen(self) -> None:
        """The page has shown a frame."""
        self._free = min(self._free + 1, IN_FLIGHT)
        self._something.set()

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message."""
        if len(self._messages) >= MOST_WAITING:
            self.gone.set()
            return
        self._messages.append(json.dumps(message))
        self._something.set()

    def show(self, frame: bytes) -> None:
        """Send a frame, in the place of one that still waits."""
        self._frame = frame
        self._something.set()

    async def next(self) -> str | bytes:
        """What is to be sent next; messages go before frames."""
        while True:
            if self._messages:
                return self._messages.popleft()
            if self._frame is not None and self._free:
                frame, self._frame = self._frame, None
                self._free -= 1
                return frame
            self._something.clear()
            await self._something.wait()


def packed(shown: Shown) -> bytes:
    """A frame as bytes: the length of its JSON (uint32, little-endian), the JSON, the pixels (RGB).

    The JSON says under "pixels" which pictures follow, and their sizes [Y, X].
    """
    sizes = {side: list(pixels.shape[:2]) for side, pixels in shown.pixels.items()}
    head = json.dumps({**shown.facts, "pixels": sizes}).encode()
    pixels = [np.ascontiguousarray(each).tobytes() for each in shown.pixels.values()]
    return b"".join([len(head).to_bytes(4, "little"), head, *pixels])

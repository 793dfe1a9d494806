"""What a page of worldflux-play says and hears, for the tests of its server."""

from __future__ import annotations

import json
from typing import Any

TOKEN = "a-token-for-the-tests"


class Page:
    """What a page does, over a connection of the test client."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.said: list[dict[str, Any]] = []

    def say(self, type: str, **fields: Any) -> None:
        """Send a message."""
        self.socket.send_text(json.dumps({"type": type, **fields}))

    def read(self) -> dict[str, Any] | tuple[dict[str, Any], dict[str, bytes]]:
        """The next message, or the next frame: its facts and its pixels by side."""
        found = self.socket.receive()
        if found["type"] == "websocket.close":
            raise ConnectionError(found)
        if found.get("text") is not None:
            message: dict[str, Any] = json.loads(found["text"])
            self.said.append(message)
            return message
        self.socket.send_text('{"type":"seen"}')
        return unpacked(found["bytes"])

    def message(self, type: str) -> dict[str, Any]:
        """The next message of a type; frames and others are passed over."""
        while True:
            found = self.read()
            if isinstance(found, dict) and found["type"] == type:
                return found

    def frame(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The next frame; an error fails the test."""
        while True:
            found = self.read()
            if isinstance(found, tuple):
                return found
            assert found["type"] != "error", found

    def hello(self, **fields: Any) -> dict[str, Any]:
        """Say hello; what the welcome says. Its first frame is read, too."""
        self.say("hello", **fields)
        welcome = self.message("welcome")
        self.first = self.frame()
        return welcome


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A frame's facts, and its pixels by side."""
    size = int.from_bytes(data[:4], "little")
    facts = json.loads(data[4 : 4 + size])
    at, pixels = 4 + size, {}
    for side, (height, width) in facts["pixels"].items():
        pixels[side] = data[at : at + 3 * height * width]
        at += 3 * height * width
    assert at == len(data), "nothing is left over"
    return facts, pixels

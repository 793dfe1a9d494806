"""A page of worldflux-play in Chromium, and the server it talks to."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

TOKEN = "a-token-for-the-browser"


def chromium() -> str | None:
    """The system's Chromium; `WORLDFLUX_CHROMIUM` names another."""
    named = os.environ.get("WORLDFLUX_CHROMIUM")
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


class Served:
    """`worldflux play` as a process, at a port that stays its own when it starts again."""

    def __init__(self, *arguments: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.arguments = list(map(str, arguments))
        self.address = f"http://127.0.0.1:{self.port}/{TOKEN}/"
        self.process: subprocess.Popen[str] | None = None

    def start(self, token: str = TOKEN) -> None:
        """Start, and wait until it answers."""
        own = ["--port", str(self.port), "--token", token]
        command = [sys.executable, "-m", "worldflux", "play", *self.arguments, *own]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, env=environment, text=True)
        end = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(self.address.replace(TOKEN, token), timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end
                time.sleep(0.1)

    def kill(self) -> None:
        """Kill it, as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Page:
    """What a person does and sees."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        if message.type == "error" and "ERR_CONNECTION_REFUSED" not in message.text:
            self.faults.append(message.text)

    def open(self, address: str) -> None:
        """Go there and wait for the first frame."""
        self.page.goto(address)
        self.connected()

    def connected(self) -> None:
        """Wait until the connection stands and something is shown."""
        self.page.wait_for_selector('#link[data-state="on"]', timeout=60_000)
        self.wait("document.body.dataset.frame !== undefined")

    def pixels(self, side: str) -> list[int]:
        """The picture of a side, RGBA."""
        found: list[int] = self.page.evaluate(
            """side => { const c = document.querySelector(`.${side} .picture`);
            return [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]; }""",
            side,
        )
        return found

    def wait(self, expression: str, seconds: float = 60.0) -> None:
        """Wait until an expression holds: asked from outside, as the page forbids `eval`."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def frame(self) -> str:
        """Episode and step that are shown, as `0.3`."""
        shown: str = self.page.evaluate("document.body.dataset.frame")
        return shown

    def until(self, frame: str) -> None:
        """Wait until a frame is shown."""
        self.wait(f"document.body.dataset.frame === '{frame}'")

    def press(self, key: str) -> str:
        """Press a key while the game is paused, and wait for its picture."""
        before = self.frame()
        self.page.keyboard.press(key)
        self.wait(f"document.body.dataset.frame !== '{before}'")
        return self.frame()

    def number(self, name: str) -> float:
        """A number of the page's head."""
        return float(self.page.text_content(f"#{name}"))

    def shot(self, folder: Path | None, name: str) -> None:
        """A picture for the documentation, where one is asked for."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(folder / f"{name}.png"))

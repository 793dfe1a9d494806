"""A session: one game, its pace, and the pages that look at it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ConfigError, EnvError, WorldFluxError
from worldflux_play import messages
from worldflux_play.actions import action_array, described
from worldflux_play.game import Game, Shown
from worldflux_play.opened import Played
from worldflux_play.recordings import Kind, Recording, recording
from worldflux_play.viewer import Viewer, packed

logger = logging.getLogger(__name__)
Array = NDArray[Any]
Job = Callable[[], Shown]
MOST_JOBS = 32
"""Requests that may wait for their turn."""


class PlaySession:
    """One game at its pace. The game has a thread of its own, where it is made, too."""

    def __init__(
        self,
        played: Played,
        fps: float = 15.0,
        finished: Callable[[Path], None] = lambda path: None,
    ) -> None:
        """`finished` hears of every recording that is complete, in the game's thread."""
        self.played, self.fps = played, fps
        self.id, self.watch_id = secrets.token_urlsafe(12), secrets.token_urlsafe(12)
        self.viewers: list[Viewer] = []
        self.alone_since = time.monotonic()
        self.playing = False
        self.closed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "play")
        self._jobs: asyncio.Queue[Job | None] = asyncio.Queue(MOST_JOBS)
        self._wake = asyncio.Event()
        self._given: list[tuple[Array | None, int]] = [(None, 0)]
        """The action of the next step with the number of its input, and what was given since."""
        self._used = True
        self._newest: bytes | None = None
        self._told: dict[str, Any] = {}
        self.finished = finished
        self.recording_kind: Kind | None = None
        self._recording: Recording | None = None
        self._told_later: list[dict[str, Any]] = []
        self.game: Game

    async def open(self) -> None:
        """Make the game and begin."""
        try:
            self.game = await self._run(lambda: Game(self.played))
        except Exception as error:
            self._thread.shutdown(wait=False)
            raise _as_ours(error) from error
        self._show(self.game.shown)
        self._task = asyncio.create_task(self._play())

    async def close(self) -> None:
        """End the game; its pages are told."""
        if self.closed.is_set():
            return
        self.closed.set()
        self._task.cancel()
        self._thread.submit(self._end)
        self._thread.shutdown(wait=False)
        for viewer in self.viewers:
            viewer.gone.set()

    def attach(self, viewer: Viewer) -> None:
        """A page has come: it is told what there is and sees the newest frame."""
        self.viewers.append(viewer)
        viewer.tell({"type": "welcome", **self.about(viewer)})
        if self._newest is not None:
            viewer.show(self._newest)

    def detach(self, viewer: Viewer) -> None:
        """A page has gone."""
        self.viewers.remove(viewer)
        self.alone_since = time.monotonic()

    def about(self, viewer: Viewer) -> dict[str, Any]:
        """What a page needs to know of the game."""
        game, model, data = self.game, self.played.model, self.played.data
        image = None if game.image_key is None else list(model.obs_spec[game.image_key].shape)
        return {
            "session": self.id if viewer.plays else None,
            "watch": self.watch_id,
            "plays": viewer.plays,
            "name": self.played.name,
            "env": self.played.env,
            "episodes": 0 if data is None else len(data),
            "actions": described(game.spec),
            "actors": game.actors(),
            "kinds": game.kinds(),
            "image": image,
            "decodes": game.dream.decodes,
            "class": type(model).__name__,
            "state": self.state(),
        }

    def state(self) -> dict[str, Any]:
        """What a player can change."""
        game = self.game
        return {
            "playing": self.playing, "fps": self.fps, "who": game.who, "kind": game.kind,
            "seed": game.seed, "uncertain": game.uncertain, "goes_on": game.goes_on,
            "recording": self.recording_kind,
        }  # fmt: skip

    def obey(self, text: str) -> None:
        """Do what a player's page says; `WorldFluxError` where that cannot be done."""
        message = messages.parsed(text)
        game = self.game
        match message:
            case messages.Act():
                self._act(message)
            case messages.Go(type="play"):
                self.playing = True
            case messages.Go(type="pause"):
                self.playing = False
            case messages.Go(type="step"):
                self._ask(None)
            case messages.Go():
                self._ask(game.resync)
            case messages.Reset():
                self._ask(lambda: game.reset(message.seed))
            case messages.Control():
                self._ask(self._changing(lambda: game.control(message.who)))
            case messages.Settings():
                self._set(message)
            case messages.Record():
                self._ask(self._changing(lambda: self._record(message.kind)))
            case messages.Start():
                self._ask(lambda: game.begin_from(message.kind, message.episode))
            case _:
                raise ConfigError("This page has said hello already.")
        self._wake.set()
        self.tell_state()

    def begin_from_image(self, data: bytes) -> None:
        """Begin from an image in bytes: RGB of the model's size, row by row."""
        game = self.game
        if game.image_key is None:
            raise ConfigError(f"{self.played.name} sees no images.")
        channels, height, width = self.played.model.obs_spec[game.image_key].shape
        if len(data) != height * width * 3:
            raise ConfigError(
                f"An image of {len(data):,} bytes, expected {height} x {width} x 3: the page "
                "scales it."
            )
        pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3).transpose(2, 0, 1)
        grey = pixels.mean(0, keepdims=True).round().astype(np.uint8)
        whole = np.tile(pixels, (channels // 3, 1, 1)) if channels % 3 == 0 else grey
        image = {game.image_key: whole if channels % 3 == 0 else np.repeat(grey, channels, 0)}
        self._ask(lambda: game.begin_from("image", image=image))

    def tell_state(self) -> None:
        """Tell every page how things are, where that has changed."""
        if (state := self.state()) == self._told:
            return
        self._told = state
        self._tell({"type": "state", **state})

    def tell_error(self, text: str) -> None:
        """Tell every page what could not be done."""
        self._tell({"type": "error", "text": text})

    # Inside

    def _tell(self, message: dict[str, Any]) -> None:
        for viewer in self.viewers:
            viewer.tell(message)

    def _end(self) -> None:
        """In the game's thread: complete what is recorded and give back the environment."""
        try:
            self._record(None)
        except WorldFluxError as error:
            logger.error("a recording was lost: %s", error)
        finally:
            self.game.close()

    def _act(self, message: messages.Act) -> None:
        spec = self.game.spec
        known = spec is not None and message.action is not None
        action = action_array(spec, message.action) if spec is not None and known else None
        # A key that is let go before the next step still counts in it.
        first = [] if self._used else self._given[:1]
        self._given, self._used = [*first, (action, message.input)], False
        if message.step:
            self._ask(None)

    def _set(self, message: messages.Settings) -> None:
        if message.fps is not None:
            self.fps = message.fps
        if message.uncertain is not None:
            self.game.uncertain = message.uncertain
        if message.goes_on is not None:
            self.game.goes_on = message.goes_on

    def _ask(self, job: Job | None) -> None:
        """Do it next; None is a step."""
        try:
            self._jobs.put_nowait(job)
            self._wake.set()
        except asyncio.QueueFull:
            raise ConfigError("Too much is asked for at once: wait for the picture.") from None

    def _record(self, kind: Kind | None) -> None:
        """Finish what is recorded and tell where it lies; begin anew with `kind`."""
        if kind == "episode" and self.played.model.stride > 1:
            raise ConfigError("This model steps over several actions at once: record a film.")
        self.game.leave_recorder()
        done = self._recording
        self._recording, self.recording_kind = None, None
        if done is not None and (path := done.finish()) is not None:
            self.finished(path)
            self._told_later.append({"type": "recorded", "name": path.name, "film": path.is_file()})
        if kind is not None:
            made = recording(kind, self.played.out, self.played.model, self.fps)
            self.game.recorder = self._recording = made
            self.recording_kind = kind
            made.show(self.game.shown)

    def _changing(self, change: Callable[[], None]) -> Job:
        """A change that shows nothing new by itself."""

        def job() -> Shown:
            change()
            return self.game.shown

        return job

    def _step(self) -> Job:
        """One step by what the person does, taken down now and done in the game's thread."""
        (action, answered), *later = self._given
        self._given, self._used = later or self._given, not later

        def job() -> Shown:
            shown = self.game.advance(action)
            return replace(shown, facts={**shown.facts, "input": answered})

        return job

    async def _play(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            if await self._is_due(due):
                job, due = self._step(), max(clock(), due + 1 / self.fps)
            else:
                job = self._jobs.get_nowait() or self._step()
            try:
                self._show(await self._run(job))
            except WorldFluxError as error:
                self._stop(str(error))
            except Exception as error:
                logger.error("a session of %s failed", self.played.name, exc_info=error)
                self._stop(f"{type(error).__name__}: {error}. The server's log says more.")
            if self._recording is not None and self._recording.full:
                self._ask(self._changing(lambda: self._record(None)))
            while self._told_later:
                self._tell(self._told_later.pop(0))
            self.tell_state()

    def _stop(self, text: str) -> None:
        self.playing = False
        self.tell_error(text)

    async def _is_due(self, until: float) -> bool:
        """Waits; True when the next step is due, False when something is asked for."""
        while True:
            if not self._jobs.empty():
                return False
            left = until - asyncio.get_running_loop().time()
            if self.playing and left <= 0:
                return True
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), left if self.playing else None)
            except TimeoutError:
                continue

    def _show(self, shown: Shown) -> None:
        self._newest = packed(shown)
        for viewer in self.viewers:
            viewer.show(self._newest)

    async def _run(self, job: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)


def _as_ours(error: Exception) -> WorldFluxError:
    """What kept a game from beginning, as an error of ours."""
    if isinstance(error, WorldFluxError):
        return error
    logger.error("a session could not begin", exc_info=error)
    return EnvError(f"The game could not begin: {type(error).__name__}: {error}.")

"""What a player records: films, and episodes in core's store. The server chooses all names."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from worldflux.columns import ACTION, step_columns
from worldflux.core.model import WorldModel
from worldflux.episodes import EpisodeRecorder, EpisodeWriter
from worldflux_play.films import Film
from worldflux_play.game import Shown

Kind = Literal["mp4", "gif", "episode"]
MOST_STEPS = 50_000
"""Of recorded episodes in one recording; the running one is in memory."""


class Recording(Protocol):
    """Something that is recorded, step by step."""

    @property
    def full(self) -> bool:
        """Whether it is as long as it may be."""

    def show(self, shown: Shown) -> None:
        """Take down what is shown."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Take down one step as it is kept in episodes."""

    def cut(self, last: Mapping[str, Any] | None) -> None:
        """The episode is broken off here; `last` is where it had come to."""

    def finish(self) -> Path | None:
        """Complete it; where it lies, None where there was nothing."""


class FilmRecording(Film):
    """A film: it does not look at rows."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Nothing of a film."""

    def cut(self, last: Mapping[str, Any] | None) -> None:
        """A film goes on."""


class EpisodeRecording:
    """Episodes in a folder of their own, which `--data` and training read."""

    def __init__(self, folder: Path, model: WorldModel) -> None:
        self.folder, self.steps = folder, 0
        self.columns = step_columns(model.obs_spec, model.action)
        self._recorder = EpisodeRecorder(EpisodeWriter(folder, self.columns), 1)
        self._begins = True

    @property
    def full(self) -> bool:
        return self.steps >= MOST_STEPS

    def show(self, shown: Shown) -> None:
        """Rows are enough."""

    def row(self, row: Mapping[str, Any]) -> None:
        if self._begins:  # it may begin in the middle of an episode
            row = {**row, "is_first": True, "reward": 0.0}
        self._begins = bool(row["is_last"])
        if ACTION in self.columns and row.get(ACTION) is None:
            spec = self.columns[ACTION]
            row = {**row, ACTION: np.zeros(spec.shape, spec.dtype)}
        self._recorder.append({name: np.asarray(row[name])[None] for name in self.columns})
        self.steps += 1

    def cut(self, last: Mapping[str, Any] | None) -> None:
        if last is not None and not self._begins:
            self.row({**last, "is_last": True})
        self._recorder.finish()
        self._begins = True

    def finish(self) -> Path | None:
        self._recorder.finish()
        return self.folder if self.steps > 1 else None


def recording(kind: Kind, out: Path, model: WorldModel, fps: float) -> Recording:
    """A new recording in `out`, named after the time."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    if kind == "episode":
        return EpisodeRecording(out / f"episodes-{name}", model)
    return FilmRecording(out / f"play-{name}.{kind}", kind, fps)

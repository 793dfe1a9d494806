"""`video`: a folder of video files, each an episode; beside each there may be a file of actions."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from worldflux.atomic import make_folder, write_file
from worldflux.columns import ACTION, Columns
from worldflux.episodes import Episode
from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux_train.data.formats.base import FormatOptions, leave_out
from worldflux_train.data.formats.pictures import only_picture
from worldflux_train.data.formats.side_actions import SideActions
from worldflux_train.data.formats.steps import StepFormat, Steps, columns_of
from worldflux_train.data.formats.timelines import Timeline, decoded, encode, timeline

SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".webm", ".mov"})
INDEX = ".worldflux-videos.json"
"""What was found out of the files' packets, kept with the set; made anew where a file changed."""
logger = logging.getLogger(__name__)
Edge = Annotated[int, Field(ge=1, le=16_384)]


class VideoOptions(FormatOptions):
    """Settings of `video`."""

    fps: PositiveFloat | None = None
    """Frames a second that are read: the ones shown at these times. None: all of them."""
    size: tuple[Edge, Edge] | None = None
    """Height and width that frames are scaled to while they are decoded; None: their own."""
    actions: PositiveInt | None = None
    """Number of different actions in the action files; None: as many as they have."""


class VideoSet(StepFormat):
    """Videos as episodes of `obs.image`; with `<name>.npy` beside each, of actions too.

    Row t of an action file is what was done at frame t of the video. At another frame rate the
    action of a frame that is read stands for those until the next.
    """

    Options = VideoOptions

    @classmethod
    def finds(cls, path: Path) -> bool:
        return next(_videos(path), None) is not None

    def __init__(self, path: Path, options: FormatOptions) -> None:
        assert isinstance(options, VideoOptions), type(options)
        self.path, self.options = path, options
        self._files = list(_videos(path))
        if not self._files:
            raise StorageError(f"{path} holds no videos ({', '.join(sorted(SUFFIXES))}).")
        self._lines = self._timelines()
        if not self._lines:
            raise StorageError(f"{path} holds no video that can be read.")
        self._taken = [line.resampled(options.fps) for line in self._lines]
        self.lengths = np.array([len(taken) for taken in self._taken], np.int64)
        frames = [len(line.times) for line in self._lines]
        self._actions = SideActions(
            [file.with_suffix(".npy") for file in self._files], frames, options.actions
        )
        size = options.size or (self._lines[0].height, self._lines[0].width)
        image = TensorSpec((3, *size), "uint8", low=0, high=255)
        self.columns = columns_of({"image": image}, self._actions.spec, reward=False)

    def steps(self, number: int) -> Steps:
        taken = self._taken[number]

        def frames(index: slice) -> NDArray[np.generic]:
            wanted, place = np.unique(taken[index], return_inverse=True)
            file, line = self._files[number], self._lines[number]
            return decoded(file, line, wanted, self.options.size)[place]

        def actions(index: slice) -> NDArray[np.generic]:
            return self._actions.at(number, taken[index])

        action = None if self._actions.spec is None else actions
        return Steps(len(taken), {"image": frames}, action)

    @classmethod
    def write_to(
        cls, path: Path, columns: Columns, episodes: Iterable[tuple[Episode, dict[str, Any]]]
    ) -> None:
        """Write `episode_000000.mp4` and so on, with the actions beside; nothing else is kept.

        The codec loses a little of each picture.
        """
        key = only_picture(columns)
        make_folder(path)
        for number, (episode, about) in enumerate(episodes):
            file = path / f"episode_{number:06d}.mp4"
            encode(file, episode[key], float(about.get("fps", 10.0)))
            if ACTION in columns:
                np.save(file.with_suffix(".npy"), np.asarray(episode[ACTION]))

    def about(self, number: int) -> dict[str, Any]:
        return {"file": str(self._files[number]), "fps": self._lines[number].fps}

    def _timelines(self) -> list[Timeline]:
        """Of every file: kept with the set, or read from those that are new or have changed."""
        kept, found = self._kept(), {}
        for file in self._files:
            name, stamp = self._name(file), _stamp(file)
            old = kept.get(name)
            if old is not None and old["stamp"] == stamp:
                found[name] = old
                continue
            try:
                line = timeline(file)
            except StorageError as error:
                leave_out(error, self.options)
                continue
            found[name] = {
                "stamp": stamp, "times": line.times.tolist(), "keys": line.keys.tolist(),
                "unit": line.unit, "height": line.height, "width": line.width,
            }  # fmt: skip
        if found != kept and self.path.is_dir():
            try:
                write_file(self.path / INDEX, json.dumps(found).encode())
            except StorageError as error:
                logger.info("the index of %s is not kept: %s", self.path, error)
        self._files = [file for file in self._files if self._name(file) in found]
        return [_line(found[self._name(file)]) for file in self._files]

    def _kept(self) -> dict[str, Any]:
        try:
            found = json.loads((self.path / INDEX).read_text("utf-8"))
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            return {}  # there is none yet, or it is of no use: it is made anew

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self.path)) if file != self.path else file.name


def _line(saved: dict[str, Any]) -> Timeline:
    times, keys = (np.array(saved[name], np.int64) for name in ("times", "keys"))
    return Timeline(times, keys, saved["unit"], saved["height"], saved["width"])


def _stamp(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _videos(path: Path) -> Iterator[Path]:
    """The video files in a folder and below, in order; or the one file."""
    if path.is_file():
        if path.suffix.lower() in SUFFIXES:
            yield path
        return
    if not path.is_dir():
        return
    for entry in sorted(path.iterdir()):
        if not entry.name.startswith(".") and (entry.is_dir() or entry.suffix.lower() in SUFFIXES):
            yield from _videos(entry)

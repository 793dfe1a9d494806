"""`frames`: folders of numbered image files, each an episode. It is asked for by name.

Nothing tells such a folder from one of a class of images, so that `data.format=frames` says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from worldflux.atomic import make_folder
from worldflux.columns import ACTION, Columns
from worldflux.episodes import Episode
from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux_train.data.formats.base import FormatOptions
from worldflux_train.data.formats.pictures import (
    image_files,
    only_picture,
    read_image,
    write_image,
)
from worldflux_train.data.formats.side_actions import SideActions
from worldflux_train.data.formats.steps import StepFormat, Steps, columns_of

ACTIONS = "actions.npy"


class FrameOptions(FormatOptions):
    """Settings of `frames`."""

    channels: Literal[1, 3] = 3
    """3: colours; 1: grey."""
    actions: PositiveInt | None = None
    """Number of different actions in `actions.npy`; None: as many as there are."""


class FrameFolders(StepFormat):
    """Every folder that holds images, at any depth; `actions.npy` in it may hold the actions."""

    Options = FrameOptions

    @classmethod
    def finds(cls, path: Path) -> bool:
        return False

    def __init__(self, path: Path, options: FormatOptions) -> None:
        assert isinstance(options, FrameOptions), type(options)
        folders: dict[Path, list[Path]] = {}
        for file in image_files(path):
            folders.setdefault(file.parent, []).append(file)
        if not folders:
            raise StorageError(f"{path} holds no folders of images.")
        self.options, self._folders = options, list(folders)
        self._files = [sorted(files, key=_natural) for files in folders.values()]
        self.lengths = np.array([len(files) for files in self._files], np.int64)
        own = [folder / ACTIONS for folder in self._folders]
        self._actions = SideActions(own, self.lengths.tolist(), options.actions)
        shape = read_image(self._files[0][0], options.channels).shape
        image = TensorSpec(shape, "uint8", low=0, high=255)
        self.columns = columns_of({"image": image}, self._actions.spec, reward=False)

    def steps(self, number: int) -> Steps:
        files, channels = self._files[number], self.options.channels

        def frames(index: slice) -> NDArray[np.generic]:
            return np.stack([read_image(file, channels) for file in files[index]])

        def actions(index: slice) -> NDArray[np.generic]:
            return self._actions.at(number, np.arange(len(files))[index])

        action = None if self._actions.spec is None else actions
        return Steps(len(files), {"image": frames}, action)

    @classmethod
    def write_to(
        cls, path: Path, columns: Columns, episodes: Iterable[tuple[Episode, dict[str, Any]]]
    ) -> None:
        """Write a folder of PNGs for each episode, with the actions; nothing else is kept."""
        key = only_picture(columns)
        for number, (episode, _) in enumerate(episodes):
            folder = path / f"episode_{number:06d}"
            make_folder(folder)
            for row, image in enumerate(episode[key]):
                write_image(folder / f"{row:06d}.png", image)
            if ACTION in columns:
                np.save(folder / ACTIONS, np.asarray(episode[ACTION]))

    def about(self, number: int) -> dict[str, Any]:
        return {"file": str(self._folders[number])}


def _natural(file: Path) -> list[int | str]:
    """A key by which frame 9 comes before frame 10."""
    parts = re.split(r"(\d+)", file.stem)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]

"""Pictures of an evaluation: saved beside a run's videos, newest first in its report."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worldflux.atomic import make_folder, write_file
from worldflux.errors import ContractError
from worldflux.runs import Run
from worldflux_train.video import FPS, write_video


def save_pictures(run: Run, tick: int, pictures: Mapping[str, NDArray[Any]]) -> list[Path]:
    """Write images (Y, X, 3) as PNG and videos (T, Y, X, 3) as MP4, all uint8.

    `ContractError` for anything else. Files are called `evaluation-<tick>-<name>`.
    """
    for name, picture in pictures.items():
        if picture.dtype != np.uint8 or picture.ndim not in (3, 4) or picture.shape[-1] != 3:
            raise ContractError(
                f"The evaluation's picture {name!r} is {picture.dtype} {picture.shape}: an image "
                "is uint8 (Y, X, 3), a video uint8 (T, Y, X, 3)."
            )
    make_folder(run.videos_path)
    return [_write(_path(run, tick, name), picture) for name, picture in pictures.items()]


def save_stages(run: Run, step: int, stages: Mapping[str, NDArray[Any]]) -> list[Path]:
    """Write pictures (Y, X, 3) of how an imagined step came about: `imagined-<step>-<name>.png`."""
    make_folder(run.videos_path)
    return [
        _write(run.videos_path / f"imagined-{step:010d}-{name}", picture)
        for name, picture in stages.items()
    ]


def newest_pictures(run: Run) -> list[Path]:
    """Those of the newest evaluation that had any."""
    found = sorted(run.videos_path.glob("evaluation-*"))
    newest = found[-1].name[: len("evaluation-0123456789-")] if found else ""
    return [path for path in found if path.name.startswith(newest)]


def _path(run: Run, tick: int, name: str) -> Path:
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name)
    return run.videos_path / f"evaluation-{tick:010d}-{plain}"


def _write(path: Path, picture: NDArray[Any]) -> Path:
    if picture.ndim == 4:
        return write_video(path.with_name(path.name + ".mp4"), picture, FPS)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    path = path.with_name(path.name + ".png")
    write_file(path, buffer.getvalue())
    return path

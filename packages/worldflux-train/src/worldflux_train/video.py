"""Frames to MP4 or GIF files."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from worldflux.atomic import make_folder, write_file
from worldflux.errors import ConfigError
from worldflux_train.recording import Array

FORMATS = ("mp4", "gif")
FPS = 12
"""Frames per second of a run's videos."""


def write_video(path: Path, frames: Array, fps: int) -> Path:
    """Write frames (T, Y, X, 3) uint8 to `path`; its suffix says the format."""
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ConfigError(f"{path.name}: videos are written as {' or '.join(FORMATS)}.")
    make_folder(path.parent)
    write_file(path, _mp4(frames, fps) if kind == "mp4" else gif(frames, fps))
    return path


def _mp4(frames: Array, fps: int) -> bytes:
    even = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]  # H.264 wants even
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "20"})
        stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
        for frame in even:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


def gif(frames: Array, fps: int) -> bytes:
    """Frames (T, Y, X, 3) uint8 as the bytes of a GIF that repeats."""
    buffer = io.BytesIO()
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return buffer.getvalue()

"""Films of a game, reality beside the dream, as MP4 or GIF."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worldflux.atomic import make_folder, not_written
from worldflux_play.game import Shown

Array = NDArray[Any]
HEIGHT = 256
"""Pixels that each side is enlarged to, by whole numbers, at least."""
GAP = 8
MOST_FRAMES = {"mp4": 36_000, "gif": 600}
"""A GIF is made of frames in memory."""
_COLOURS = {"real": (79, 209, 181), "dream": (183, 155, 255)}
_GROUND = (13, 16, 20)


class Film:
    """A film that has its name once it is complete. Frames that show nothing are left out."""

    def __init__(self, path: Path, kind: str, fps: float) -> None:
        self.path, self.kind, self.frames = path, kind, 0
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        make_folder(path.parent)
        fps = max(1.0, fps)
        try:
            self._file = _Mp4(self._partial, fps) if kind == "mp4" else _Gif(self._partial, fps)
        except OSError as error:
            raise not_written(path, error) from error

    @property
    def full(self) -> bool:
        """Whether it is as long as a film may be."""
        return self.frames >= MOST_FRAMES[self.kind]

    def show(self, shown: Shown) -> None:
        """Add what is shown, if there is room."""
        frame = side_by_side(shown)
        if frame is None or self.full:
            return
        try:
            self._file.add(frame)
        except OSError as error:
            raise not_written(self.path, error) from error
        self.frames += 1

    def finish(self) -> Path | None:
        """Finish the file; its path, None where nothing was shown."""
        try:
            self._file.close()
            if self.frames:
                os.replace(self._partial, self.path)
                return self.path
        except OSError as error:
            raise not_written(self.path, error) from error
        finally:
            self._partial.unlink(missing_ok=True)
        return None


class _Mp4:
    def __init__(self, path: Path, fps: float) -> None:
        self.container = av.open(str(path), "w", format="mp4")
        rate = Fraction(fps).limit_denominator(100)
        self.stream: Any = self.container.add_stream("libx264", rate=rate)
        self.stream.options = {"crf": "18", "preset": "veryfast"}
        self.stream.pix_fmt = "yuv420p"
        self.size: tuple[int, int] | None = None

    def add(self, frame: Array) -> None:
        if self.size is None:
            self.size = (frame.shape[0], frame.shape[1])
            self.stream.height, self.stream.width = self.size
        picture = av.VideoFrame.from_ndarray(_fitted(frame, self.size), format="rgb24")
        self.container.mux(self.stream.encode(picture))

    def close(self) -> None:
        if self.size is not None:
            self.container.mux(self.stream.encode(None))
        self.container.close()


class _Gif:
    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.frames: list[Image.Image] = []

    def add(self, frame: Array) -> None:
        if self.frames:
            width, height = self.frames[0].size
            frame = _fitted(frame, (height, width))
        self.frames.append(Image.fromarray(frame).quantize(128))

    def close(self) -> None:
        if not self.frames:
            return
        first, *rest = self.frames
        length = max(20, round(1000 / self.fps))  # browsers slow down what is faster
        with self.path.open("wb") as stream:
            first.save(stream, "GIF", save_all=True, append_images=rest, duration=length, loop=0)


def side_by_side(shown: Shown) -> Array | None:
    """Reality and the dream in one picture (Y, X, 3) with even sides; None where neither is."""
    sides = [_side(shown, side) for side in ("real", "dream")]
    found = [side for side in sides if side is not None]
    if not found:
        return None
    height = max(side.shape[0] for side in found)
    gap = np.full((height, GAP, 3), _GROUND, np.uint8)
    parts: list[Array] = []
    for side in found:
        parts += [*([gap] if parts else []), _fitted(side, (height, side.shape[1]))]
    whole = np.concatenate(parts, 1)
    return np.ascontiguousarray(whole[: whole.shape[0] // 2 * 2, : whole.shape[1] // 2 * 2])


def _side(shown: Shown, side: str) -> Array | None:
    if side in shown.pixels:
        pixels = shown.pixels[side]
        times = max(1, HEIGHT // pixels.shape[0])
        return pixels.repeat(times, 0).repeat(times, 1)
    values = shown.facts["bars"].get(side)
    return None if not values else drawn_bars(values, _COLOURS[side])


def drawn_bars(values: list[float], colour: tuple[int, int, int]) -> Array:
    """Numbers as bars (HEIGHT, HEIGHT, 3), from the middle up and down."""
    canvas = np.full((HEIGHT, HEIGHT, 3), _GROUND, np.uint8)
    scale = max(1.0, *map(abs, values))
    edges = np.linspace(0, HEIGHT, len(values) + 1).round().astype(int)
    middle = HEIGHT // 2
    for value, left, right in zip(values, edges, edges[1:], strict=False):
        end = middle - round(value / scale * (middle - 4))
        low, high = sorted((middle, end))
        canvas[low : high + 1, left : max(left + 1, right - 1)] = colour
    return canvas


def _fitted(frame: Array, size: tuple[int, int]) -> Array:
    """A frame of that size: cut, or with ground around it."""
    if frame.shape[:2] == size:
        return frame
    canvas = np.full((*size, 3), _GROUND, np.uint8)
    part = frame[: size[0], : size[1]]
    canvas[: part.shape[0], : part.shape[1]] = part
    return canvas

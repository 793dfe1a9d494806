"""Which frames a video holds, from its packets alone, and the frames at another rate."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from worldflux.errors import StorageError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Timeline:
    """The frames of a video: when each is shown, in units of `unit` seconds, and which are whole.

    `times` (F,) are sorted; `keys` are the times of frames that need no other to be decoded.
    """

    times: Ints
    keys: Ints
    unit: float
    height: int
    width: int

    def resampled(self, fps: float | None) -> Ints:
        """The frames (R,) that are shown at every 1/fps second; all of them for None."""
        if fps is None:
            return np.arange(len(self.times))
        seconds = (self.times - self.times[0]) * self.unit
        length = seconds[-1] + 1e-6
        at = np.arange(int(length * fps) + 1) / fps
        return np.searchsorted(seconds, at + 1e-6, side="right") - 1

    @property
    def fps(self) -> float:
        """Frames per second, on average."""
        span = float(self.times[-1] - self.times[0]) * self.unit
        return (len(self.times) - 1) / span if span else 1.0


def timeline(path: Path) -> Timeline:
    """The timeline of a video file. It is read, not decoded."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise StorageError(f"{path} has no video in it.")
            stream = container.streams.video[0]
            times, keys = [], []
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size:
                    times.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
            unit = float(stream.time_base or 0)
            height, width = stream.codec_context.height, stream.codec_context.width
    except (av.FFmpegError, OSError) as error:
        raise StorageError(f"{path} cannot be read as a video: {error}.") from error
    if not times or not keys or not unit:
        raise StorageError(f"{path} cannot be read as a video: it holds no frames.")
    return Timeline(np.array(sorted(times)), np.array(sorted(keys)), unit, height, width)


def decoded(
    path: Path, line: Timeline, frames: Ints, size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """Frames (K, 3, Y, X), by their numbers (K,), which ascend; decoded from the keyframe before.

    `size` is a height and width to scale them to.
    """
    wanted = line.times[frames]
    found: dict[int, NDArray[np.uint8]] = {}
    height, width = (line.height, line.width) if size is None else size
    needed = set(wanted.tolist())
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the readers are threads already
            if wanted[0] > line.times[0]:
                container.seek(int(wanted[0]), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts in needed:
                    scaled = frame.reformat(width, height, "rgb24")
                    found[frame.pts] = np.asarray(scaled.to_ndarray(), np.uint8)
                    if len(found) == len(needed):
                        break
    except (av.FFmpegError, OSError) as error:
        raise StorageError(f"it cannot be decoded: {error}") from error
    missing = [int(n) for n, time in zip(frames, wanted.tolist(), strict=True) if time not in found]
    if missing:
        raise StorageError(f"frame {missing[0]} cannot be decoded ({len(missing)} in all)")
    stacked: NDArray[np.uint8] = np.stack([found[time] for time in wanted.tolist()])
    return stacked.transpose(0, 3, 1, 2)


def encode(path: Path, images: NDArray[np.generic], fps: float) -> None:
    """Write images (T, C, Y, X) as a video; a keyframe every 16, for fast reading.

    Odd heights and widths, which the codec does not take, get a further row or column.
    """
    pixels = np.asarray(images, np.uint8)
    pixels = pixels.repeat(3, 1) if pixels.shape[1] == 1 else pixels
    odd = [(0, size % 2) for size in pixels.shape[2:]]
    pixels = np.pad(pixels, ((0, 0), (0, 0), *odd), "edge").transpose(0, 2, 3, 1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
        stream.options, stream.codec_context.gop_size = {"crf": "16"}, 16
        for image in pixels:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

"""Imagination videos: the real beside the imagined, as frames."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldflux_train.drawing import IMAGINED, comparison_frames
from worldflux_train.imagine import Imagination
from worldflux_train.recording import Array

SIDE = 224
CONTEXT = "#64748b"
_BAR = 22
_TOP = 32


def frames_of(found: Imagination) -> Array:
    """Frames (T, Y, X, 3): images side by side with their difference, else picture and curves.

    A bar above says which steps the model was shown (the context) and how far ahead it imagines.
    """
    frames = _compared(found)
    if not found.error:  # a generator's images have no time
        return frames
    length, width = len(frames), frames.shape[2]
    bars = [_bar(width, t, found.context, length) for t in range(length)]
    return np.concatenate([np.stack(bars), frames], 1)


def _compared(found: Imagination) -> Array:
    if found.images:
        return np.concatenate([_beside(*pair) for pair in found.images.values()], 1)
    curves = comparison_frames(found)
    if found.frames is None:
        return curves
    height = curves.shape[1]
    scene = found.frames[: len(curves)]
    width = round(height * scene.shape[2] / scene.shape[1])
    drawn = np.stack([_resized(frame, width, height) for frame in scene])
    return np.concatenate([drawn, curves], 2)


def stages_of(stages: Array) -> Array:
    """Stages (S, C, Y, X) in [0, 1] of one imagined step, side by side in a picture (Y', X', 3)."""
    columns = list(_enlarged(stages))
    gap = np.full((columns[0].shape[0], 6, 3), 255, np.uint8)
    parts = [part for column in columns for part in (column, gap)][:-1]
    return np.concatenate(parts, 1)


def _bar(width: int, t: int, context: int, length: int) -> Array:
    """(_TOP, width, 3): what step `t` is, over a time line on which imagination's part is red."""
    ahead, begins = t - context + 1, round(width * context / length)
    color = IMAGINED if ahead > 0 else CONTEXT
    bar = Image.new("RGB", (width, _TOP), "white")
    pen = ImageDraw.Draw(bar)
    pen.rectangle((0, 0, 6, _BAR - 4), color)
    text = (
        f"imagined: {ahead} of {length - context} steps ahead"
        if ahead > 0
        else "context: the model sees it"
    )
    pen.text((12, 2), text, color, ImageFont.load_default(13))
    pen.rectangle((0, _BAR, width, _TOP - 3), "#e2e8f0")
    reached = round(width * (t + 1) / length)
    pen.rectangle((0, _BAR, min(reached, begins), _TOP - 3), CONTEXT)
    if ahead > 0:
        pen.rectangle((begins, _BAR, reached, _TOP - 3), IMAGINED)
    pen.line((begins, _BAR - 3, begins, _TOP), "#0f172a", 2)  # here imagination begins
    return np.asarray(bar)


def _beside(real: Array, imagined: Array) -> Array:
    """(T, C, Y, X) in [0, 1], twice -> (T, Y', X', 3): real | imagined | difference, labelled."""
    difference = (imagined - real + 1) / 2
    columns = [_enlarged(part) for part in (real, imagined, difference)]
    gap = np.full((*columns[0].shape[:2], 6, 3), 255, np.uint8)
    strip = np.concatenate([columns[0], gap, columns[1], gap, columns[2]], 2)
    bar = _labels(strip.shape[2], ("real", "imagined", "difference"))
    return np.concatenate([np.broadcast_to(bar, (len(strip), *bar.shape)), strip], 1)


def _enlarged(images: Array) -> Array:
    images = images[:, -3:] if images.shape[1] >= 3 else images[:, -1:].repeat(3, 1)
    factor = max(1, SIDE // max(images.shape[-2:]))
    pixels = (images.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
    return pixels.repeat(factor, 1).repeat(factor, 2)


def _labels(width: int, names: tuple[str, ...]) -> Array:
    bar = Image.new("RGB", (width, _BAR), "white")
    pen = ImageDraw.Draw(bar)
    for i, name in enumerate(names):
        pen.text((i * width / len(names) + 4, 4), name, "#0f172a", ImageFont.load_default(13))
    return np.asarray(bar)


def _resized(frame: Array, width: int, height: int) -> Array:
    return np.asarray(
        Image.fromarray(frame[..., :3]).resize((width, height), Image.Resampling.LANCZOS)
    )

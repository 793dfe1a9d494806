"""The video of planned episodes: where each starts, its goal, and the path on the way there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worldflux_train.planning.result import PlannedEpisode

SIDE, GAP, BAR, HELD = 192, 6, 22, 10
"""Pixels of a picture's edge, between pictures and of the line above; frames the end is held."""
_TRAIL = (66, 133, 244)
Array = NDArray[Any]


def planning_frames(episodes: list[PlannedEpisode]) -> Array | None:
    """Frames (T, Y, X, 3): start, goal and the episode itself, one after the other.

    None where no episode has pictures.
    """
    found = [
        _frame(episode, t, number)
        for number, episode in enumerate(episodes, 1)
        if episode.frames
        for t in [*range(len(episode.frames)), *[len(episode.frames) - 1] * HELD]
    ]
    return np.stack(found) if found else None


def _frame(episode: PlannedEpisode, t: int, number: int) -> Array:
    start = episode.frames[0]
    goal = np.full_like(start, 235) if episode.goal is None else episode.goal
    now = _with_path(_scaled(episode.frames[t]), episode.path[: t + 1])
    panels = [_scaled(start), _scaled(goal), now]
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    row = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], 1)
    return np.concatenate([_bar(row.shape[1], episode, t, number), row], 0)


def _scaled(picture: Array) -> Array:
    image = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
    small = max(picture.shape[:2]) < SIDE
    kind = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return np.asarray(image.resize((SIDE, SIDE), kind))


def _with_path(picture: Array, path: list[tuple[float, float]]) -> Array:
    """The picture (Y, X, 3) with a line through the places on the way."""
    if len(path) < 2:
        return picture
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    pen.line([(x * SIDE, y * SIDE) for x, y in path], fill=_TRAIL, width=3)
    return np.asarray(image)


def _bar(width: int, episode: PlannedEpisode, t: int, number: int) -> Array:
    image = Image.new("RGB", (width, BAR), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    said = {True: "reached", False: "not reached", None: f"return {episode.total:.2f}"}
    over = t + 1 >= len(episode.frames)
    now = f"{number}: step {t}" + (f", {said[episode.success]}" if over else "")
    for i, text in enumerate(("start", "goal" if episode.goal is not None else "", now)):
        pen.text((i * (SIDE + GAP) + 4, 3), text, "#0f172a", font)
    return np.asarray(image)

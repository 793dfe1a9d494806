"""Drawn shapes with labels: a set of images that a small model can learn within minutes. No torch.

Each class is a form; place, size, turn and colours are random and say nothing about the class.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ContractError

Floats = NDArray[np.float64]


def _triangle(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x) * 0.866 + y * 0.5, -y) - 0.55


def _plus(x: Floats, y: Floats) -> Floats:
    wide = np.maximum(np.abs(x) - 1.0, np.abs(y) - 0.3)
    return np.minimum(wide, np.maximum(np.abs(y) - 1.0, np.abs(x) - 0.3))


def _cup(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.maximum(np.abs(x), np.abs(y)) - 0.85, -np.maximum(np.abs(x) - 0.4, -y))


# Signed distances from a form's edge, negative inside; x and y are (N, Y, X), the form has size 1.
_FORMS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": lambda x, y: np.hypot(x, y) - 0.9,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.8,
    "hoop": lambda x, y: np.abs(np.hypot(x, y) - 0.75) - 0.22,
    "plus": _plus,
    "triangle": _triangle,
    "bar": lambda x, y: np.maximum(np.abs(x) - 1.1, np.abs(y) - 0.28),
    "half": lambda x, y: np.maximum(np.hypot(x, y) - 1.0, -y),
    "two": lambda x, y: np.hypot(np.abs(x) - 0.62, y) - 0.42,
    "frame": lambda x, y: np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.75) - 0.18,
    "cup": _cup,
}
CLASSES = tuple(_FORMS)
"""The names of the forms; a label is a place in this list."""


def draw_shapes(
    count: int, seed: int, *, classes: int = len(CLASSES), size: int = 32, channels: int = 3,
    turned: bool = False, spread: float = 1.0,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:  # fmt: skip
    """`count` images (N, C, Y, X) of one shape each, and their labels (N,), equally many of each.

    The same arguments give the same images. `turned` turns each by a random angle; `spread` scales
    how far places and sizes differ (0: all in the middle, of one size).
    """
    if not 1 <= classes <= len(CLASSES) or size < 8:
        raise ContractError(
            f"draw_shapes: classes={classes}, size={size}. There are {len(CLASSES)} classes; the "
            "smallest size is 8."
        )
    random = np.random.default_rng([seed, 0x5BA9E5])
    labels = random.permutation(np.arange(count) % classes).astype(np.int64)
    radius = 0.52 + 0.1 * spread * random.uniform(-1, 1, count)
    centre = spread * random.uniform(-1, 1, (2, count)) * (1 - 1.1 * radius)
    angle = random.uniform(-np.pi, np.pi, count) if turned else np.zeros(count)
    ink, paper = _colours(random, count, channels)
    images = np.empty((count, channels, size, size), np.uint8)
    for label in range(classes):
        own = np.flatnonzero(labels == label)
        for part in np.array_split(own, -(-len(own) // 1024) or 1):  # in pieces: it takes memory
            shade = _shade(CLASSES[label], centre[:, part], radius[part], angle[part], size)
            mixed = paper[part] + (ink[part] - paper[part]) * shade
            images[part] = np.rint(mixed * 255).astype(np.uint8)
    return images, labels


def _shade(form: str, centre: Floats, radius: Floats, angle: Floats, size: int) -> Floats:
    """How much of each pixel a form covers (N, 1, Y, X): 1 inside, 0 outside."""
    line = (np.arange(size) + 0.5) / size * 2 - 1
    dx = line[None, None, :] - centre[0][:, None, None]
    dy = line[None, :, None] - centre[1][:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    scale = radius[:, None, None]
    distance = _FORMS[form]((dx * cos + dy * sin) / scale, (dy * cos - dx * sin) / scale) * scale
    shade: Floats = np.clip(0.5 - distance * size / 2, 0, 1)[:, None]
    return shade


def _colours(random: np.random.Generator, count: int, channels: int) -> tuple[Floats, Floats]:
    """Bright ink and dark paper, (N, C, 1, 1) each."""
    ink = random.uniform(0.55, 1.0, (count, channels, 1, 1))
    paper = random.uniform(0.0, 0.3, (count, channels, 1, 1))
    return ink, paper

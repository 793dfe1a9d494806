"""Augmentations of where things are: crops, sizes, flips."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from PIL import Image as Pillow
from pydantic import Field, NonNegativeInt

from worldflux_train.data.augment.base import (
    Augmentation,
    Chance,
    Change,
    Edge,
    Image,
    Range,
    Size,
    unchanged,
)

Box = tuple[float, float, float, float]
"""Left, upper, right, lower edge in pixels."""
_TRIES = 10


def resized(image: Image, size: Size, box: Box | None = None) -> Image:
    """The part `box` of an image (Y, X, C) in another size: bicubic, smoothed where it shrinks."""
    if box is None and image.shape[:2] == size:
        return image
    width_height = (size[1], size[0])
    layers = [image] if image.shape[2] == 3 else [layer for layer in np.moveaxis(image, 2, 0)]
    done = [
        np.asarray(Pillow.fromarray(np.ascontiguousarray(layer)).resize(
            width_height, Pillow.Resampling.BICUBIC, box
        ))
        for layer in layers
    ]  # fmt: skip
    return done[0] if image.shape[2] == 3 else np.stack(done, 2)


def _centre(image: Image, size: Size) -> Image:
    top, left = ((own - new) // 2 for own, new in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]


class Resize(Augmentation):
    """Scales images so that the shorter edge has `size` pixels."""

    size: Edge
    """Pixels of the shorter edge."""

    def after(self, before: Size) -> Size:
        factor = self.size / min(before)
        return max(1, round(before[0] * factor)), max(1, round(before[1] * factor))

    def drawn(self, before: Size, random: np.random.Generator) -> Change:
        return self.fixed(before)

    def fixed(self, before: Size) -> Change:
        return lambda image: resized(image, self.after(before))


class _Square(Augmentation):
    size: Edge
    """Pixels of both edges of the result."""

    def after(self, before: Size) -> Size:
        return self.size, self.size


class CentreCrop(_Square):
    """Cuts a square out of the middle; smaller images are scaled up to it first."""

    def drawn(self, before: Size, random: np.random.Generator) -> Change:
        return self.fixed(before)

    def fixed(self, before: Size) -> Change:
        enough = Resize(size=self.size).after(before) if min(before) < self.size else before
        return lambda image: _centre(resized(image, enough), self.after(before))


class RandomCrop(_Square):
    """Cuts out a square at a random place; held-out images the one in the middle."""

    padding: NonNegativeInt = 0
    """Pixels by which the edge is continued outwards before cutting (4 for CIFAR)."""

    def drawn(self, before: Size, random: np.random.Generator) -> Change:
        pad, (height, width) = self.padding, before
        room = [edge + 2 * pad - self.size for edge in (height, width)]
        if min(room) < 0:
            return self.fixed(before)
        top, left = (int(random.integers(most + 1)) for most in room)

        def cut(image: Image) -> Image:
            wider = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), "edge") if pad else image
            return wider[top : top + self.size, left : left + self.size]

        return cut

    def fixed(self, before: Size) -> Change:
        return CentreCrop(size=self.size).fixed(before)


class RandomResizedCrop(_Square):
    """Cuts out a random part and scales it to a square (Szegedy et al. 2015).

    Held-out images are scaled to `size / centre` and cut in the middle.
    """

    scale: Range = (0.08, 1.0)
    """Smallest and largest share of the image's area that the part has."""
    ratio: Range = (3 / 4, 4 / 3)
    """Narrowest and widest shape of the part: width by height."""
    centre: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Of held-out images: the share of the shorter edge that is kept (0.875 for ImageNet)."""

    def drawn(self, before: Size, random: np.random.Generator) -> Change:
        box = self._box(before, random)
        return lambda image: resized(image, self.after(before), box)

    def fixed(self, before: Size) -> Change:
        between = Resize(size=max(1, round(self.size / self.centre)))
        scaled = between.after(before)
        return lambda image: _centre(resized(image, scaled), self.after(before))

    def _box(self, before: Size, random: np.random.Generator) -> Box:
        height, width = before
        for _ in range(_TRIES):
            area = height * width * random.uniform(*self.scale)
            shape = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            wide, high = math.sqrt(area * shape), math.sqrt(area / shape)
            if wide <= width and high <= height:
                left, top = random.uniform(0, width - wide), random.uniform(0, height - high)
                return left, top, left + wide, top + high
        edge = min(before)  # the image is too long for any such part: the square in its middle
        left, top = (width - edge) / 2, (height - edge) / 2
        return left, top, left + edge, top + edge


class HorizontalFlip(Augmentation):
    """Mirrors left and right. Actions and texts in images lose their meaning by it."""

    chance: Chance = 0.5
    """How often."""

    def drawn(self, before: Size, random: np.random.Generator) -> Change:
        return _mirrored if random.random() < self.chance else unchanged


def _mirrored(image: Image) -> Image:
    return image[:, ::-1]

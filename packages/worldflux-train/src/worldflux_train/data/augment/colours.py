"""Augmentations of colour and sharpness, as in SimCLR (Chen et al. 2020)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFilter
from pydantic import Field, NonNegativeFloat

from worldflux.errors import ConfigError
from worldflux_train.data.augment.base import Augmentation, Chance, Change, Image, Size, unchanged

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class ColourJitter(Augmentation):
    """Changes brightness, contrast, saturation and hue by random amounts, in random order."""

    brightness: NonNegativeFloat = 0.4
    """Factors lie between 1 - this (at least 0) and 1 + this."""
    contrast: NonNegativeFloat = 0.4
    """As brightness, of the distance from the mean grey."""
    saturation: NonNegativeFloat = 0.4
    """As brightness, of the distance from each pixel's own grey; of colour images alone."""
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Largest turn of the colour circle, as a share of it; of colour images alone."""
    chance: Chance = 1.0
    """How often."""

    def drawn(self, before: Size, random: np.random.Generator) -> Change:
        if random.random() >= self.chance:
            return unchanged
        spreads = (self.brightness, self.contrast, self.saturation)
        factors = [random.uniform(max(0.0, 1 - spread), 1 + spread) for spread in spreads]
        amounts = (*factors, random.uniform(-self.hue, self.hue))
        order = random.permutation(4)

        def change(image: Image) -> Image:
            for which in order:
                image = _STEPS[which](image, amounts[which])
            return image

        return change


def _brighter(image: Image, factor: float) -> Image:
    return _pixels(image * np.float32(factor))


def _contrast(image: Image, factor: float) -> Image:
    mean = _grey(image).mean()
    return _pixels(mean + (image - mean) * np.float32(factor))


def _saturated(image: Image, factor: float) -> Image:
    if image.shape[2] != 3:
        return image
    grey = _grey(image)[..., None]
    return _pixels(grey + (image - grey) * np.float32(factor))


def _turned(image: Image, turn: float) -> Image:
    if image.shape[2] != 3 or turn == 0:
        return image
    hsv = np.array(Pillow.fromarray(np.ascontiguousarray(image)).convert("HSV"))
    hsv[..., 0] += np.uint8(round(turn * 255) % 256)  # the circle is 256 long: it wraps by itself
    turned = Pillow.frombytes("HSV", (hsv.shape[1], hsv.shape[0]), hsv.tobytes())
    return np.asarray(turned.convert("RGB"))


_STEPS = (_brighter, _contrast, _saturated, _turned)


def _grey(image: Image) -> np.ndarray:
    """(Y, X): the brightness of colours; of other images the mean of their channels."""
    if image.shape[2] == 3:
        grey: np.ndarray = image.astype(np.float32) @ _GREY
        return grey
    return image.astype(np.float32).mean(2)


def _pixels(values: np.ndarray) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


class Blur(Augmentation):
    """Gaussian blur with a random width."""

    low: NonNegativeFloat = 0.1
    """Smallest standard deviation, in pixels."""
    high: NonNegativeFloat = 2.0
    """Largest."""
    chance: Chance = 0.5
    """How often."""

    def drawn(self, before: Size, random: np.random.Generator) -> Change:
        if self.low > self.high:
            raise ConfigError(f"blur: low={self.low} is above high={self.high}.")
        sigma = random.uniform(self.low, self.high)
        if random.random() >= self.chance:
            return unchanged
        blur = ImageFilter.GaussianBlur(sigma)

        def change(image: Image) -> Image:
            layers = [Pillow.fromarray(np.ascontiguousarray(x)) for x in np.moveaxis(image, 2, 0)]
            return np.stack([np.asarray(layer.filter(blur)) for layer in layers], 2)

        return change

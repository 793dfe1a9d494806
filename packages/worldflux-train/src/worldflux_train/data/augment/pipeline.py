"""Augmentations one after another, on every image column of a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.columns import OBS, Columns
from worldflux.errors import ConfigError, did_you_mean
from worldflux.specs import TensorSpec
from worldflux_train.data.augment.base import Augmentation, Size
from worldflux_train.data.augment.colours import Blur, ColourJitter
from worldflux_train.data.augment.shapes import (
    CentreCrop,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Resize,
)

NAMES: dict[str, type[Augmentation]] = {
    "random_resized_crop": RandomResizedCrop,
    "random_crop": RandomCrop,
    "resize": Resize,
    "centre_crop": CentreCrop,
    "horizontal_flip": HorizontalFlip,
    "colour_jitter": ColourJitter,
    "blur": Blur,
}
Item = str | Mapping[str, Mapping[str, Any] | None]


class Augmentations:
    """What is done to the uint8 images (C, Y, X) in the observations of a sample, in this order.

    All images of a sample are changed alike, whatever column they are in. `fixed`: the form for
    held-out data, without chance.
    """

    def __init__(
        self, steps: Iterable[Augmentation], columns: Columns, fixed: bool = False
    ) -> None:
        """`columns` are those of the data, before any change."""
        self.steps, self.fixed = tuple(steps), fixed
        self._before = {name: spec for name, spec in columns.items() if _changes(name, spec)}

    def spec(self, column: str, spec: TensorSpec) -> TensorSpec:
        if column not in self._before:
            return spec
        channels, *size = spec.shape
        low, high = (None if isinstance(x, tuple) else x for x in (spec.low, spec.high))
        return replace(spec, shape=(channels, *self._sizes((size[0], size[1]))[-1]),
                       low=low, high=high)  # fmt: skip

    def columns(self, columns: Columns) -> dict[str, TensorSpec]:
        """The columns afterwards."""
        return {name: self.spec(name, spec) for name, spec in columns.items()}

    def apply(
        self, column: str, rows: NDArray[np.generic], key: tuple[int, ...]
    ) -> NDArray[np.generic]:
        if column not in self._before or not len(rows):
            return rows
        images = rows.transpose(0, 2, 3, 1)  # (K, Y, X, C)
        changes = [
            step.fixed(size) if self.fixed else step.drawn(size, np.random.default_rng([*key, i]))
            for i, (step, size) in enumerate(
                zip(self.steps, self._sizes(images.shape[1:3])[:-1], strict=True)
            )
        ]
        done = []
        for image in images:
            for change in changes:
                image = change(image)
            done.append(image)
        return np.stack(done).transpose(0, 3, 1, 2)

    def _sizes(self, size: Size) -> list[Size]:
        """The size of images before each step, and after the last."""
        found = [size]
        for step in self.steps:
            found.append(step.after(found[-1]))
        return found


def _changes(name: str, spec: TensorSpec) -> bool:
    return name.startswith(OBS) and spec.image


def augmentations(items: Iterable[Item]) -> tuple[Augmentation, ...]:
    """From names, or names with settings: `["horizontal_flip", {"resize": {"size": 64}}]`."""
    return tuple(_augmentation(item) for item in items)


def _augmentation(item: Item) -> Augmentation:
    settings: Mapping[str, Any] | None
    if isinstance(item, str):
        name, settings = item, None
    elif isinstance(item, Mapping) and len(item) == 1:
        name, settings = next(iter(item.items()))
    else:
        raise ConfigError(
            f"An augmentation is a name, or one name with its settings, got {item!r:.200}. "
            "Example: [horizontal_flip, {random_resized_crop: {size: 64, scale: [0.3, 1.0]}}]"
        )
    if name not in NAMES:
        raise ConfigError(
            f"There is no augmentation {name!r}.{did_you_mean(str(name), NAMES)} "
            f"Augmentations: {', '.join(NAMES)}."
        )
    if not isinstance(settings, Mapping | None):
        raise ConfigError(f"The settings of {name} are a mapping, got {settings!r:.200}.")
    kind = NAMES[name]
    try:
        return kind(**(settings or {}))
    except ConfigError as error:
        raise ConfigError(str(error).replace(kind.__name__, name)) from None

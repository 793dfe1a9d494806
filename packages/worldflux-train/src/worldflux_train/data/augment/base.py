"""One augmentation: its settings, and what it does to images of a size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from worldflux.config import Config

Image = NDArray[np.uint8]
Change = Callable[[Image], Image]
Size = tuple[int, int]
"""Height and width in pixels."""
Chance = Annotated[float, Field(ge=0.0, le=1.0)]
Edge = Annotated[int, Field(ge=1, le=16_384)]
Range = Annotated[tuple[float, float], Field(min_length=2, max_length=2)]


class Augmentation(Config):
    """Settings of one augmentation. What it draws, it draws once for all images of a sample."""

    def after(self, before: Size) -> Size:
        """The size of images afterwards; most leave it as it is."""
        return before

    @abstractmethod
    def drawn(self, before: Size, random: np.random.Generator) -> Change:
        """What is done to each image (Y, X, C) of a sample whose images have the size `before`."""

    def fixed(self, before: Size) -> Change:
        """What is done to held-out images, without chance; most leave them as they are."""
        return unchanged


def unchanged(image: Image) -> Image:
    """The image itself."""
    return image

"""How pixels are normalised before networks see them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux.core.source import Source
from worldflux.training import Phase

FITTED_ON = 4
"""Batches that pixels are normalised by."""


def unit(image: Tensor) -> Tensor:
    """Images (..., C, Y, X), of bytes or in [0, 1], as numbers in [0, 1]."""
    return image if image.is_floating_point() else image.float() / 255


class Pixels(nn.Module):
    """Pixels in [0, 1] less `mean`, over `scale`: the same for all, or by what the data look like.

    A small thing that moves hardly shows in the error of a picture, and the least error is the
    mean picture; `whiten` has each pixel count by how much it changes.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, shape: tuple[int, ...], whiten: bool, mean: float = 0.5, scale: float = 0.5
    ) -> None:
        super().__init__()
        size = shape if whiten else (1, 1, 1)
        self.whiten = whiten
        # what is fitted to the data is part of a model; what is given belongs to its code
        self.register_buffer("mean", torch.full(size, mean), persistent=whiten)
        self.register_buffer("scale", torch.full(size, scale), persistent=whiten)

    def forward(self, image: Tensor) -> Tensor:
        """Images (..., C, Y, X), of bytes or in [0, 1], as the networks see them."""
        return (unit(image) - self.mean) / self.scale

    def raw(self, x: Tensor) -> Tensor:
        """What the networks see (..., C, Y, X), as images, unbounded."""
        return x * self.scale + self.mean

    def back(self, x: Tensor) -> Tensor:
        """What the networks see (..., C, Y, X), as images in [0, 1]."""
        return self.raw(x).clamp(0, 1)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take mean and scale from images (N, C, Y, X).

        The scale is the geometric mean of the deviation of that pixel and that of all, so that
        things that are seldom anywhere count, and pixels that hardly change do not count too much.
        """
        x = unit(images)
        own, every = x.std(0), (x - x.mean(0)).square().mean().sqrt().clamp(min=1e-3)
        self.mean.copy_(x.mean(0))
        self.scale.copy_((own.maximum(0.01 * every) * every).sqrt())

    def fit_to(self, source: Source, phase: Phase, key: str) -> None:
        """Take mean and scale from images `key` of a phase's first batches, if it whitens."""
        if self.whiten:
            self.fit(first_images(source, phase, key).to(self.mean.device))


def first_images(source: Source, phase: Phase, key: str) -> Tensor:
    """Images (N, C, Y, X) called `key` of the first batches that a phase would learn from.

    Without what fills up sequences that are too short.
    """
    found = []
    for i in range(FITTED_ON):
        batch = source.read(source.choose(phase, i))
        images = batch.obs[key].flatten(0, 1)
        found.append(images if batch.mask is None else images[batch.mask.flatten()])
    return torch.cat(found)

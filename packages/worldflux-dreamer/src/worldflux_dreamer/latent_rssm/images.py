"""The image networks of World Models, PlaNet and Dreamer: 64 x 64 pixels, strided convolutions."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from worldflux.errors import ContractError
from worldflux_dreamer.latent_rssm.layers import ACTIVATIONS, dense, glorot

SIDE = 64
KERNELS = (5, 5, 6, 6)
"""Of the decoder; with stride 2 they make 1 pixel 5, 13, 30 and 64."""


def quantised(image: Tensor, bits: int, noise: Tensor | None = None) -> Tensor:
    """Pixels (..., C, Y, X) in [0, 1]: uint8 ones cut to `bits`, at a bin's middle or spread.

    `noise` uniform in [0, 1) of the image's shape fills the bin (PlaNet dequantises so). With 8
    bits and no noise, x / 255. Floating images are taken as they are.
    """
    if image.dtype != torch.uint8:
        return image.float()
    if bits == 8 and noise is None:
        return image.float() / 255
    bins = 2**bits
    within = 0.5 if noise is None else noise
    return ((image // 2 ** (8 - bits)).float() + within) / bins


def check_side(shape: tuple[int, ...]) -> None:
    """Raise unless an image (C, Y, X) has the one size these networks are made for."""
    if tuple(shape[1:]) != (SIDE, SIDE):
        raise ContractError(
            f"An image of shape {tuple(shape)} does not fit: these networks take {SIDE} x {SIDE} "
            f"pixels. Resize it, for example with the environment's option size={SIDE}."
        )


class ImageEncoder(nn.Sequential):
    """Four convolutions with kernel 4 and stride 2; (N, C, Y, X) around 0 -> (N, 32 depth)."""

    def __init__(self, shape: tuple[int, ...], depth: int, activation: str) -> None:
        check_side(shape)
        channels = [shape[0], depth, 2 * depth, 4 * depth, 8 * depth]
        layers: list[nn.Module] = []
        for a, b in pairwise(channels):
            conv = nn.Conv2d(a, b, 4, 2)
            glorot(conv)
            layers += [conv, ACTIVATIONS[activation]()]
        super().__init__(*layers, nn.Flatten())
        self.size = 32 * depth

    def forward(self, image: Tensor) -> Tensor:
        # a third faster on CPU than channels first, forward and backward
        embed: Tensor = super().forward(image.contiguous(memory_format=torch.channels_last))
        return embed


class PixelToMap(nn.ConvTranspose2d):
    """The transposed convolution of a single pixel, (N, C, 1, 1) -> (N, C', k, k).

    That is one matrix product, which the general kernel takes seven times as long for.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert self.bias is not None
        maps = x.flatten(1) @ self.weight.flatten(1)  # (N, C' k k)
        return maps.unflatten(1, self.weight.shape[1:]) + self.bias[:, None, None]


class ImageDecoder(nn.Sequential):
    """A dense layer and four transposed convolutions; (N, F) -> (N, C, Y, X) around 0."""

    def __init__(self, size_in: int, shape: tuple[int, ...], depth: int, activation: str) -> None:
        check_side(shape)
        channels = [32 * depth, 4 * depth, 2 * depth, depth, shape[0]]
        layers: list[nn.Module] = [dense(size_in, channels[0]), nn.Unflatten(1, (-1, 1, 1))]
        for a, b, side in zip(channels[:-1], channels[1:], KERNELS, strict=True):
            kind = PixelToMap if len(layers) == 2 else nn.ConvTranspose2d
            conv = kind(a, b, side, 2)
            glorot(conv)
            layers += [conv, ACTIVATIONS[activation]()]
        super().__init__(*layers[:-1])

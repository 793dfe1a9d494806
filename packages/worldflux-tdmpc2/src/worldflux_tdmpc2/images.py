"""Images: the random shift and the convolutional encoder (`common/layers.py`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux_tdmpc2.networks import SimNorm

SIDE = 64
PAD = 3
SHIFTS = 2 * PAD + 1
"""Places along an axis that a shift chooses from."""
CELLS = 16
"""Spatial positions that the convolutions leave of a 64 x 64 image."""


def shifted(image: Tensor, shift: Tensor) -> Tensor:
    """Images (B, C, Y, X) moved by `shift` (B, 2), each 0 to 6 as (x, y); 3 does not move.

    The border is replicated 3 pixels outwards and a window of the old size cut out at (y, x).
    """
    batch, channels, height, width = image.shape
    rows = torch.arange(height, device=image.device) + shift[:, 1:] - PAD  # (B, Y)
    columns = torch.arange(width, device=image.device) + shift[:, :1] - PAD  # (B, X)
    rows = rows.clamp(0, height - 1)[:, None, :, None].expand(batch, channels, height, width)
    columns = columns.clamp(0, width - 1)[:, None, None, :].expand(batch, channels, height, width)
    return image.gather(2, rows).gather(3, columns)


class PixelEncoder(nn.Sequential):
    """Four convolutions, flattened (c, h, w), then SimNorm: (B, C, 64, 64) in 0..255 -> (B, D)."""

    def __init__(self, channels: int, latent_dim: int, simnorm: int) -> None:
        depth = latent_dim // CELLS
        super().__init__(
            nn.Conv2d(channels, depth, 7, stride=2),
            nn.ReLU(),
            nn.Conv2d(depth, depth, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(depth, depth, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(depth, depth, 3, stride=1),
            nn.Flatten(),
            SimNorm(simnorm),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, 64, 64) -> (B, D); integers are 0..255, floats already in [0, 1] as everywhere."""
        pixels = image if image.is_floating_point() else image.float() / 255
        latent: Tensor = super().forward(pixels - 0.5)
        return latent

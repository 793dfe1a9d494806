"""Frames as patches and back; frames that patches do not divide are padded, and cropped again."""

from __future__ import annotations

from math import ceil

from torch import Tensor
from torch.nn import functional as F


def grid(shape: tuple[int, ...], patch: int) -> tuple[int, int]:
    """Rows and columns of patches that cover an image of `shape` (C, Y, X)."""
    return ceil(shape[1] / patch), ceil(shape[2] / patch)


def patchify(image: Tensor, patch: int) -> Tensor:
    """(..., C, Y, X) -> (..., N, patch * patch * C), row by row; zeros below and on the right.

    The features of a patch are in the order (row, column, channel).
    """
    *lead, channels, height, width = image.shape
    rows, columns = grid((channels, height, width), patch)
    padded = F.pad(image, (0, columns * patch - width, 0, rows * patch - height))
    cut = padded.reshape(-1, channels, rows, patch, columns, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(*lead, rows * columns, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, shape: tuple[int, ...]) -> Tensor:
    """Patches (..., N, P) -> images (..., C, Y, X) of `shape` (C, Y, X); the padding is cut off."""
    channels, height, width = shape
    rows, columns = grid((channels, height, width), patch)
    lead = patches.shape[:-2]
    cut = patches.reshape(-1, rows, columns, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
    whole = cut.reshape(*lead, channels, rows * patch, columns * patch)
    return whole[..., :height, :width]


def pixels(image: Tensor) -> Tensor:
    """Images (...) as floats in [0, 1]: integers are 0..255, floats are there already."""
    return image if image.is_floating_point() else image.float() / 255

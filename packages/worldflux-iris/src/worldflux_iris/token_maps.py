"""Tokens as pictures: every word of the code-book has a colour of its own."""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = 0.6180339887
"""Hues that are this far apart from one word to the next hardly meet again."""


def colours(tokens: Tensor) -> Tensor:
    """Colours (..., 3) in [0, 1] of words by their numbers (...); neighbours look different."""
    hue = (tokens.double() * GOLDEN).remainder(1)
    light = 1 - 0.2 * (tokens.double() / 7).remainder(1)  # a second mark for hues that are near
    wheel = hue[..., None] * 6 + hue.new_tensor([0.0, 4.0, 2.0])
    part = (wheel.remainder(6) - 3).abs().sub(1).clamp(0, 1)
    return (light[..., None] * (0.15 + 0.8 * part)).float()


def maps(tokens: Tensor) -> Tensor:
    """Tokens (..., N) of a square as images (..., 3, side, side) of their colours."""
    side = round(tokens.shape[-1] ** 0.5)
    found = colours(tokens).unflatten(-2, (side, side))
    return found.movedim(-1, -3)


def drawn_by_rows(before: Tensor, after: Tensor) -> Tensor:
    """How tokens (B, N) followed those before them: images (S, B, 3, side, side).

    First the map of `before`, then that of `after` row by row; white is what is not drawn yet.
    """
    old, new = maps(before), maps(after)
    rows = torch.arange(new.shape[-2], device=new.device)[:, None]
    part = [torch.where(rows <= row, new, 1.0) for row in range(len(rows))]
    return torch.stack([old, *part])

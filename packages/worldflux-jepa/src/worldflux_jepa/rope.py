"""Rotary positions of video tokens: a part of each head turns with time, row and column."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def rotated(x: Tensor, position: Tensor) -> Tensor:
    """x (..., N, D) with its pairs of features turned by `position` (N,).

    The tables of sines are laid one after the other where pairs are neighbours, as in the
    published code (V-JEPA 2): the two features of a pair turn by different angles.
    """
    half = x.shape[-1] // 2
    frequency = torch.arange(half, dtype=x.dtype, device=x.device) / half
    angle = position.to(x)[:, None] * 10000.0**-frequency  # (N, D / 2)
    sin, cos = angle.sin().repeat(1, 2), angle.cos().repeat(1, 2)
    one, other = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-other, one], -1).flatten(-2) * sin


@dataclass(frozen=True)
class Places:
    """Where tokens (N,) are: frame, row and column; `patch` (N,) is False for other tokens."""

    frame: Tensor
    row: Tensor
    column: Tensor
    patch: Tensor


def places(
    frames: int, grid: tuple[int, int], extra: int, first: int = 0, size: int | None = None,
    device: torch.device | None = None,
) -> Places:  # fmt: skip
    """Of `frames` frames from `first` on, each of `extra` other tokens and then its patches.

    Rows and columns are scaled as if the grid had `size` of each (None: as many as its rows).
    """
    height, width = grid
    size = size or height
    row = torch.arange(height, device=device).repeat_interleave(width) * (size / height)
    column = torch.arange(width, device=device).repeat(height) * (size / width)
    nowhere = torch.zeros(extra, device=device)
    per = extra + height * width
    index = torch.arange(per, device=device) >= extra
    return Places(
        frame=torch.arange(first, first + frames, device=device).repeat_interleave(per),
        row=torch.cat([nowhere, row]).repeat(frames),
        column=torch.cat([nowhere, column]).repeat(frames),
        patch=index.repeat(frames),
    )


class Turn:
    """Turns queries or keys (B, heads, N, D) by the places of their tokens.

    A third of the features each, rounded down to pairs, turns with frame, row and column; what is
    left over does not turn. Tokens that are no patches turn with the frame alone.
    """

    def __init__(self, at: Places) -> None:
        self.at = at

    def __call__(self, x: Tensor) -> Tensor:
        """(B, heads, N, D) -> (B, heads, N, D)."""
        part = 2 * (x.shape[-1] // 3 // 2)
        time, row, column, rest = x.split([part, part, part, x.shape[-1] - 3 * part], -1)
        patch = self.at.patch[:, None]
        turned = [
            rotated(time, self.at.frame),
            torch.where(patch, rotated(row, self.at.row), row),
            torch.where(patch, rotated(column, self.at.column), column),
        ]
        return torch.cat([*turned, rest], -1)


def block_causal(frames: int, per: int, device: torch.device | None = None) -> Tensor:
    """Mask (N, N), True where a token may look: at its own frame's `per` tokens and all before."""
    frame = torch.arange(frames, device=device).repeat_interleave(per)
    return frame[:, None] >= frame[None]

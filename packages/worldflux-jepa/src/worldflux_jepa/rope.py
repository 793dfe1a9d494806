"""Rotary positions of video tokens: a part of each head turns with time, row and column."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Tables = tuple[Tensor, Tensor, Tensor]
"""Cosines and signed sines (N, D), and the other feature (D,) of each feature's pair."""


def angles(position: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """By how much features (N, width) turn at `position` (N,).

    The frequencies are laid one after the other where pairs are neighbours, as in the published
    code (V-JEPA 2): the two features of a pair turn by different angles.
    """
    half = width // 2
    frequency = torch.arange(half, dtype=dtype, device=position.device) / max(1, half)
    return (position.to(dtype)[:, None] * 10000.0**-frequency).repeat(1, 2)


def tables(angle: Tensor) -> Tables:
    """What `rotated` needs to turn features by `angle` (N, D)."""
    index = torch.arange(angle.shape[1], device=angle.device)
    sign = torch.where(index % 2 == 0, -1, 1).to(angle)
    other = (index ^ 1).clamp(max=angle.shape[1] - 1)  # of an odd number the last stays
    return angle.cos(), angle.sin() * sign, other


def rotated(x: Tensor, by: Tables) -> Tensor:
    """x (..., N, D) with its pairs of neighbouring features turned."""
    cos, sin, other = by
    return torch.addcmul(x * cos, x.index_select(-1, other), sin)


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
    left over does not turn. Tokens that are no patches turn with the frame alone. All blocks share
    the tables.
    """

    def __init__(self, at: Places) -> None:
        self.at = at
        self.tables: dict[tuple[int, torch.dtype], Tables] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """(B, heads, N, D) -> (B, heads, N, D)."""
        key = x.shape[-1], x.dtype
        if key not in self.tables:
            self.tables[key] = tables(self._angles(*key))
        return rotated(x, self.tables[key])

    def _angles(self, width: int, dtype: torch.dtype) -> Tensor:
        """By how much the features (N, width) of all tokens turn."""
        at, part = self.at, 2 * (width // 3 // 2)
        positions = (at.frame, at.row * at.patch, at.column * at.patch)
        turning = [angles(position, part, dtype) for position in positions]
        left = turning[0].new_zeros(len(at.frame), width - 3 * part)
        return torch.cat([*turning, left], -1)


def block_causal(frames: int, per: int, device: torch.device | None = None) -> Tensor:
    """Mask (N, N), True where a token may look: at its own frame's `per` tokens and all before."""
    frame = torch.arange(frames, device=device).repeat_interleave(per)
    return frame[:, None] >= frame[None]

"""The frames that a State remembers: at most T, the oldest first, of each row its own number."""

from __future__ import annotations

import torch
from torch import Tensor

Columns = dict[str, Tensor]


def some(mask: Tensor) -> bool:
    """Whether `mask` (...) holds anywhere; of tensors without data, that it may."""
    return mask.is_meta or bool(mask.any())


def longest(length: Tensor, frames: int) -> int:
    """The largest of lengths (B,); of tensors without data, all `frames`."""
    return frames if length.is_meta or not len(length) else int(length.max())


def put(column: Tensor, length: Tensor, value: Tensor) -> Tensor:
    """A copy of `column` (B, T, ...) with `value` (B, ...) at place `length` (B,) of each row."""
    here = torch.arange(column.shape[1], device=column.device) == length[:, None]  # (B, T)
    here = here.reshape(*here.shape, *[1] * (column.ndim - 2))
    return torch.where(here, value[:, None].to(column), column)


def made_room(columns: Columns, length: Tensor) -> tuple[Columns, Tensor]:
    """Columns (B, T, ...) and lengths (B,) where rows that are full have lost their oldest frame.

    The place that is free then is zero.
    """
    frames = next(iter(columns.values())).shape[1]
    full = length >= frames
    if not some(full):
        return columns, length
    found = {}
    for name, column in columns.items():
        moved = torch.cat([column[:, 1:], torch.zeros_like(column[:, :1])], 1)
        found[name] = torch.where(full.reshape(-1, *[1] * (column.ndim - 1)), moved, column)
    return found, length - full.to(length)


def cleared(columns: Columns, length: Tensor, rows: Tensor) -> tuple[Columns, Tensor]:
    """Columns (B, T, ...) and lengths (B,) where `rows` (B,) hold nothing."""
    found = {
        name: column.masked_fill(rows.reshape(-1, *[1] * (column.ndim - 1)), 0)
        for name, column in columns.items()
    }
    return found, length.masked_fill(rows, 0)


def places(is_first: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Of steps (B, T): the numbers (B, T) of frames in their episode, and who sees whom (B, T, T).

    Both are None where every row is of one episode, as they are then 0, 1, ... and causal.
    """
    inner = is_first.clone()
    inner[:, 0] = False
    if not some(inner):
        return None, None
    steps = torch.arange(is_first.shape[1], device=is_first.device)
    begun = torch.where(inner, steps, 0).cummax(1).values  # (B, T)
    same = begun[:, :, None] == begun[:, None, :]
    return steps - begun, same & (steps[:, None] >= steps)

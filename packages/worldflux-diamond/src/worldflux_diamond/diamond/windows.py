"""Windows of an episode's last steps; what lies before its first one is zero."""

from __future__ import annotations

import torch
from torch import Tensor


def ages(is_first: Tensor, before: Tensor | None = None) -> Tensor:
    """Steps (B, T) since the first of the running episode, counting it, of flags (B, T).

    `before` (B,) counts the steps that an episode going on had already; None counts those that
    cannot be seen as many.
    """
    step = torch.arange(1, is_first.shape[1] + 1, device=is_first.device)
    begun = torch.where(is_first, step, 0).cummax(1).values  # 0: it began earlier
    many = torch.full_like(is_first[:, 0], 1 << 30, dtype=torch.long) if before is None else before
    return torch.where(begun > 0, step - begun + 1, step + many[:, None].long())


def episode_windows(x: Tensor, is_first: Tensor, t: int, size: int) -> Tensor:
    """The `size` steps before step t of x (B, T, ...), of the episode of t: (B, size, ...)."""
    begin = max(t - size, 0)
    window = x[:, begin:t]
    if t < size:
        missing = window.new_zeros((x.shape[0], size - t, *x.shape[2:]))
        window = torch.cat([missing, window], 1)
    age = ages(is_first[:, : t + 1])[:, t] - 1  # steps of the episode before t
    place = torch.arange(size, 0, -1, device=x.device)  # how far back each step is
    held = (place <= age[:, None]).reshape(*window.shape[:2], *[1] * (x.ndim - 2))
    return torch.where(held, window, 0)


def all_windows(before: Tensor, x: Tensor, age: Tensor) -> Tensor:
    """Windows (B, T, K, ...) that end with each step of x (B, T, ...).

    `before` (B, K, ...) is the window that ended before the first; `age` (B, T) counts the steps
    of the running episode, so many of a window's last are kept and the others zero.
    """
    size, steps = before.shape[1], x.shape[1]
    whole = torch.cat([before, x], 1)
    windows = torch.stack([whole[:, i + 1 : i + 1 + steps] for i in range(size)], 2)
    place = torch.arange(size, 0, -1, device=x.device)
    held = place <= age[..., None]  # (B, T, K)
    return torch.where(held.reshape(*held.shape, *[1] * (x.ndim - 2)), windows, 0)

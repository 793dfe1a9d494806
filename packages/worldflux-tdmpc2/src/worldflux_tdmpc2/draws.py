"""Samplers of TD-MPC2's own: pairs of Q functions, and dropout's mask (see `core/rand.py`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worldflux.core.rand import Sampler

_CHANCES = 2**16
HEADS = 2
"""Q functions that targets, policy and planning choose of the ensemble."""


def heads(members: int) -> Sampler:
    """Two different of `members` (..., 2), each pair equally likely."""

    def draw(
        shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        keys = torch.rand(*shape[:-1], members, device=device, generator=generator)
        return keys.topk(shape[-1], -1).indices

    return draw


def keep_mask(rate: float) -> Sampler:
    """Dropout's mask: 0 with probability `rate`, to 2^-16, else what keeps the mean at 1.

    Four elements share one 64-bit random integer: several million are needed per update.
    """
    dropped = round(rate * _CHANCES)

    def draw(
        shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        count = math.prod(shape)
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
        chances = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
        kept = (chances >= dropped - _CHANCES // 2).float().mul_(_CHANCES / (_CHANCES - dropped))
        return kept.reshape(shape)

    return draw

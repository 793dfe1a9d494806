"""Slow and frozen copies of networks: target critics, exponential moving averages."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def slow_copy(source: ModuleT) -> ModuleT:
    """An independent copy that takes no gradients."""
    return copy.deepcopy(source).requires_grad_(False)


@torch.no_grad()
def ema_update(slow: nn.Module, source: nn.Module, rate: float) -> None:
    """slow <- rate * source + (1 - rate) * slow, parameter by parameter; buffers are copied."""
    ours, theirs = dict(slow.named_parameters()), dict(source.named_parameters())
    assert ours.keys() == theirs.keys(), (ours.keys(), theirs.keys())
    torch._foreach_lerp_(list(ours.values()), [theirs[name] for name in ours], rate)
    for own, other in zip(slow.buffers(), source.buffers(), strict=True):
        own.copy_(other)

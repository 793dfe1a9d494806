"""Blocks of k actions, one step of a model with a stride, executed one action after another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Blocks:
    """Blocks (B, k, ...) of `k` actions (B, ...); a block of one action has no axis for it."""

    k: int

    def action(self, block: Tensor, number: Tensor) -> Tensor:
        """Action `number` (B,) of each row's block, (B, ...)."""
        if self.k == 1:
            return block
        return block[torch.arange(len(block), device=block.device), number]

    def replaced(self, block: Tensor, number: Tensor, action: Tensor) -> Tensor:
        """The block with `action` (B, ...) in place of action `number` (B,)."""
        action = action.to(block)
        if self.k == 1:
            return action.reshape(block.shape)
        place = self._numbers(block) == _behind(number, block)
        return torch.where(place, action.reshape(len(block), 1, *block.shape[2:]), block)

    def completed(self, block: Tensor, done: Tensor, other: Tensor) -> Tensor:
        """The first `done` (B,) actions of each row's block, then those of `other`."""
        if self.k == 1:
            return other
        return torch.where(self._numbers(block) < _behind(done, block), block, other)

    def _numbers(self, block: Tensor) -> Tensor:
        """0 to k - 1 along the second axis of a block."""
        numbers = torch.arange(self.k, device=block.device)
        return numbers.reshape(1, self.k, *[1] * (block.ndim - 2))


def _behind(number: Tensor, block: Tensor) -> Tensor:
    """Numbers (B,) with the axes of a block behind them."""
    return number.reshape(-1, *[1] * (block.ndim - 1))

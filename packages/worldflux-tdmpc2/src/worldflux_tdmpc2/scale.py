"""The running scale of values that the policy loss is divided by."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def value_range(values: Tensor) -> Tensor:
    """95th minus 5th percentile of values (M,), at least 1."""
    low, high = torch.quantile(values.float(), values.new_tensor([0.05, 0.95]).float())
    return (high - low).clamp(min=1.0)


class RunningScale(nn.Module):
    """A moving average of `value_range`, from 1 (`common/scale.py:RunningScale`)."""

    value: Tensor

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.register_buffer("value", torch.ones(()))

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Move towards the range of values (M,)."""
        self.value.lerp_(value_range(values), self.tau)

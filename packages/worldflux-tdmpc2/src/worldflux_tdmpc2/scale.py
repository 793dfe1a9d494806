"""The running scale of values that the policy loss is divided by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PERCENTILES = (0.05, 0.95)


def value_range(values: Tensor, levels: Tensor) -> Tensor:
    """Upper minus lower quantile of values (M,) at `levels` (2,), at least 1."""
    low, high = torch.quantile(values.float(), levels)
    return (high - low).clamp(min=1.0)


class RunningScale(nn.Module):
    """A moving average of the `value_range` of `PERCENTILES`, from 1 (`common/scale.py`)."""

    value: Tensor
    levels: Tensor

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.register_buffer("value", torch.ones(()))
        # on the device once: made anew, they would be copied to it, and waited for, every update
        self.register_buffer("levels", torch.tensor(PERCENTILES), persistent=False)

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Move towards the range of values (M,)."""
        self.value.lerp_(value_range(values, self.levels), self.tau)

"""Scale of returns: moving percentiles, so that advantages are comparable across tasks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux_dreamer.dreamerv3.config import AgentConfig


class ReturnNorm(nn.Module):
    """Moving averages of two percentiles of all returns of a batch, from 0, without debiasing.

    (utils.py:Normalize with impl "perc"). The state is updated with a batch before that batch uses
    it; only advantages are divided by the scale, value targets stay raw.
    """

    low: Tensor
    high: Tensor
    percentiles: Tensor

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.rate, self.limit = config.retnorm_rate, config.retnorm_limit
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        percentiles = torch.tensor([config.retnorm_low, config.retnorm_high]) / 100
        self.register_buffer("percentiles", percentiles, persistent=False)

    @torch.no_grad()
    def update(self, returns: Tensor) -> None:
        """Move the percentiles towards those of `returns` (any shape)."""
        low, high = torch.quantile(returns.detach().float().flatten(), self.percentiles)
        self.low.lerp_(low, self.rate)
        self.high.lerp_(high, self.rate)

    def scale(self) -> Tensor:
        """What advantages are divided by: high - low, at least the limit."""
        return (self.high - self.low).clamp(min=self.limit)

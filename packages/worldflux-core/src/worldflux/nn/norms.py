"""Normalisation layers, computed in float32 whatever the compute dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, in float32, back in the dtype of x."""
    wide = x.float()
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * (inverse * scale)).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a scale and no shift (DreamerV3: eps 1e-4)."""

    def __init__(self, size: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.scale, self.eps)

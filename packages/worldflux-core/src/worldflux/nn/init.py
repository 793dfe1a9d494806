"""Weight initialisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TRUNCATED_STD = 1.1368
"""Makes a normal truncated at two standard deviations have unit variance (nets.py:Initializer)."""


@torch.no_grad()
def trunc_normal_in_(weight: Tensor, fan_in: int, scale: float = 1.0) -> Tensor:
    """Fill, in any shape, with a normal truncated at 2 sigma, of variance scale^2 / fan_in."""
    if scale == 0:
        return weight.zero_()
    sigma = TRUNCATED_STD * math.sqrt(1 / fan_in) * scale
    return nn.init.trunc_normal_(weight, 0.0, sigma, -2 * sigma, 2 * sigma)

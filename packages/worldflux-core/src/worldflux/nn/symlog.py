"""Symmetric logarithm: compresses magnitude, keeps the sign (DreamerV3, eq. 9)."""

from __future__ import annotations

import torch
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|), elementwise."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`: sign(x) (exp(|x|) - 1), elementwise."""
    return torch.sign(x) * torch.expm1(torch.abs(x))

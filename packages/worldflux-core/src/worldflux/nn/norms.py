"""Root-mean-square normalisation, computed in float32 whatever the compute dtype."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, in float32, back in the dtype of x.

    With a grouped scale (G, 1, C) the features of x (G, N, C) lie in axes 0 and 2.
    """
    dims = (0, 2) if scale.ndim == 3 else (-1,)
    wide = x.float()
    inverse = torch.rsqrt(wide.square().mean(dims, keepdim=True) + eps)
    return (wide * inverse * scale).to(x.dtype)


def rms_norm_silu(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """SiLU of `rms_norm` of x (..., C), in few passes; compilers fuse the plain form."""
    if torch.compiler.is_compiling():
        return F.silu(rms_norm(x, scale, eps))
    rows = x if scale.ndim == 3 else x.reshape(-1, x.shape[-1])
    activated: Tensor
    if torch.is_grad_enabled():
        activated = _NormSilu.apply(rows, scale, eps)
    else:
        unit = _unit(rows, scale, eps)[0]
        activated = F.silu(unit.mul_(scale), inplace=True).to(x.dtype)
    return activated.view(x.shape)


def _unit(x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x with root mean square one, in float32, and the inverse root mean square (..., 1)."""
    x = x.float()
    size = scale.numel()
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    if scale.ndim == 3:
        length = torch.linalg.vector_norm(length, dim=0, keepdim=True)
    inverse = length.square_().add_(eps * size).rsqrt_().mul_(math.sqrt(size))
    return x * inverse, inverse


class _NormSilu(torch.autograd.Function):
    """Keeps the unit vectors and the inverse root mean square, not what follows from them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        unit, inverse = _unit(x, scale, eps)
        ctx.save_for_backward(unit, scale, inverse)
        return F.silu(unit * scale, inplace=True).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, scale, inverse = ctx.saved_tensors
        normed = unit * scale
        pulled = torch.ops.aten.silu_backward(grad.float(), normed)  # gradient of the norm
        product = torch.mul(pulled, unit, out=normed)
        if scale.ndim == 3:  # (G, N, C), scale (G, 1, C)
            grad_scale = product.sum(1, keepdim=True)
            along = torch.bmm(product, scale.transpose(1, 2)).sum(0, keepdim=True)
        else:
            grad_scale = product.sum(0)
            along = torch.mv(product, scale)[:, None]
        pulled.mul_(scale).addcmul_(unit, along, value=-1 / scale.numel()).mul_(inverse)
        return pulled.to(grad.dtype), grad_scale, None


class RMSNorm(nn.Module):
    """Root-mean-square norm of (..., C) with a scale and no shift (DreamerV3: eps 1e-4)."""

    def __init__(self, size: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.scale, self.eps)


class RMSNormSiLU(RMSNorm):
    """RMSNorm of (..., C), then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm_silu(x, self.scale, self.eps)

    def grouped(self, x: Tensor) -> Tensor:
        """The same on x (G, N, C) whose features are G groups of C."""
        return rms_norm_silu(x, self.scale.view(x.shape[0], 1, -1), self.eps)

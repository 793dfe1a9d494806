"""Root-mean-square normalisation, computed in float32 whatever the compute dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, in float32, back in the dtype of x."""
    wide = x.float()
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * (inverse * scale)).to(x.dtype)


def rms_norm_silu(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """SiLU of `rms_norm`, in few passes over memory; a compiler fuses the plain form itself."""
    if torch.compiler.is_compiling():
        return F.silu(rms_norm(x, scale, eps))
    if not torch.is_grad_enabled():
        return F.silu(_normed(x.float(), scale, eps)[0]).to(x.dtype)
    activated: Tensor = _NormSilu.apply(x, scale, eps)
    return activated


def _normed(x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm of float32 x (..., C), and the inverse root mean square (..., 1)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (x * inverse).mul_(scale), inverse


class _NormSilu(torch.autograd.Function):
    """Keeps x and the inverse root mean square only; the rest is computed again going back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        normed, inverse = _normed(x.float(), scale, eps)
        ctx.save_for_backward(x, scale, inverse)
        return F.silu(normed).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scale, inverse = ctx.saved_tensors
        wide, size = x.float(), x.shape[-1]
        normed = (wide * inverse).mul_(scale)
        pulled = torch.ops.aten.silu_backward(grad.float(), normed)  # gradient of the norm
        product = torch.mul(pulled, wide, out=normed).view(-1, size)
        grad_scale = torch.mv(product.t(), inverse.view(-1))
        shift = torch.mv(product, scale).view_as(inverse) * inverse.pow(3).div_(size)
        grad_x = pulled.mul_(scale).mul_(inverse).addcmul_(wide, shift, value=-1)
        return grad_x.to(x.dtype), grad_scale, None


class RMSNorm(nn.Module):
    """Root-mean-square norm with a scale and no shift (DreamerV3: eps 1e-4)."""

    def __init__(self, size: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.scale, self.eps)


class RMSNormSiLU(RMSNorm):
    """RMSNorm, then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm_silu(x, self.scale, self.eps)

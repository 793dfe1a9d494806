"""Root-mean-square normalisation, computed in float32 whatever the compute dtype."""

from __future__ import annotations

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
    """SiLU of `rms_norm`, in few passes over memory; a compiler fuses the plain form itself."""
    if torch.compiler.is_compiling():
        return F.silu(rms_norm(x, scale, eps))
    grouped = x if scale.ndim == 3 else x.reshape(1, -1, x.shape[-1])
    weight = scale if scale.ndim == 3 else scale.view(1, 1, -1)
    activated: Tensor
    if torch.is_grad_enabled():
        activated = _NormSilu.apply(grouped, weight, eps)
    else:
        activated = F.silu(_normed(grouped.float(), weight, eps)[0]).to(x.dtype)
    return activated.view(x.shape)


def _normed(x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm of float32 x (G, N, C) over G and C; the inverse root mean square (1, N, 1)."""
    squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().sum(0, keepdim=True)
    inverse = squares.div_(x.shape[0] * x.shape[2]).add_(eps).rsqrt_()
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
        wide, groups = x.float(), x.shape[0]
        normed = (wide * inverse).mul_(scale)
        pulled = torch.ops.aten.silu_backward(grad.float(), normed)  # gradient of the norm
        product = torch.mul(pulled, wide, out=normed)
        rows = inverse.view(1, 1, -1).expand(groups, -1, -1)
        grad_scale = torch.bmm(rows, product)  # (G, 1, C)
        pull = torch.bmm(product, scale.transpose(1, 2)).sum(0, keepdim=True)  # (1, N, 1)
        shift = pull.mul_(inverse.pow(3)).div_(groups * x.shape[2])
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

    def grouped(self, x: Tensor) -> Tensor:
        """The same on x (G, N, C) whose features are G groups of C."""
        return rms_norm_silu(x, self.scale.view(x.shape[0], 1, -1), self.eps)

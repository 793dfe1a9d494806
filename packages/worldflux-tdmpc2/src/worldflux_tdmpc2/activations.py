"""Mish and group-wise softmax without torch's slow CPU kernels; on other devices, torch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_LINEAR = 20.0
"""Above this, tanh(ln(1 + e^x)) is 1 in float32."""
_SAFE = 60.0
"""Up to this, neither e^x nor a sum of many e^x leaves the range of float32."""


def mish(x: Tensor) -> Tensor:
    """x tanh(ln(1 + e^x)), elementwise (1908.08681). On CPU three times as fast as `F.mish`."""
    if x.device.type != "cpu":
        return F.mish(x)
    result: Tensor = _Mish.apply(x) if _differentiates(x) else _mish(x)
    return result


def group_softmax(x: Tensor, size: int) -> Tensor:
    """Softmax within consecutive groups of `size` along the last axis, in float32."""
    if x.device.type != "cpu":
        return x.unflatten(-1, (-1, size)).float().softmax(-1).flatten(-2)
    if _differentiates(x):
        result: Tensor = _GroupSoftmax.apply(x, size)
        return result
    return _group_softmax(x, size)


def _differentiates(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _mish(x: Tensor) -> Tensor:
    """x / (1 + 2 / (e (e + 2))) with e = e^x; an e that overflows leaves x, one of 0 leaves 0."""
    wide = x.float()
    e = wide.exp()
    e.addcmul_(e, e, value=0.5).reciprocal_().add_(1)
    return torch.div(wide, e, out=e).to(x.dtype)


class _Mish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _mish(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # w + x w', with w = 1 - 2/q, q = (1 + e)^2 + 1, w' = 4 e (1 + e) / q^2
        (x,) = ctx.saved_tensors
        wide = x.float()
        e = wide.clamp(max=_LINEAR).exp_()
        inverse = (e + 1).square_().add_(1).reciprocal_()  # 1/q
        slope = e.addcmul_(e, e).mul_(inverse).mul_(inverse).mul_(wide).mul_(4)
        return slope.sub_(inverse, alpha=2).add_(1).mul_(grads[0]).to(x.dtype)


def _group_softmax(x: Tensor, size: int) -> Tensor:
    """The groups' sums are a matrix product, which is the fastest way to sum few numbers."""
    flat = x.float().reshape(-1, size)
    if flat.numel() and max(abs(float(end)) for end in torch.aminmax(flat)) > _SAFE:
        flat = flat - flat.amax(-1, keepdim=True)
    e = flat.exp()
    total = torch.mv(e, e.new_ones(size))
    return e.mul_(total.reciprocal_().unsqueeze(-1)).reshape(x.shape)


class _GroupSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        ctx.size, ctx.dtype = size, x.dtype
        y = _group_softmax(x, size)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        weighted = (grads[0] * y).reshape(-1, ctx.size)
        total = torch.mv(weighted, y.new_ones(ctx.size)).unsqueeze(-1)
        inner = weighted.addcmul_(y.reshape(-1, ctx.size), total, value=-1)
        return inner.reshape(y.shape).to(ctx.dtype), None

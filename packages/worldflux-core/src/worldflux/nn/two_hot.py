"""Scalars as a distribution over fixed bins: a target lies between its two neighbouring bins.

`bins` (K,) are in the space of the scalar itself; a family that regresses in another space (as
TD-MPC2 in symlog) transforms before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.nn.symlog import symexp


def symexp_bins(count: int = 255, limit: float = 20.0) -> Tensor:
    """Bins (K,) symexp(linspace(-limit, limit)), exactly symmetric around 0 (DreamerV3, eq. 10)."""
    half = symexp(torch.linspace(-limit, 0, (count + 1) // 2))
    return torch.cat([half, -half.flip(0)[count % 2 :]])


def two_hot_weights(target: Tensor, bins: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For targets (...): indices and weights (...) of the bins below and above.

    The weights sum to one and interpolate linearly; outside of the support all weight is on the
    last bin. Those of a target that is not finite are NaN: it must not be learned as a bin.
    """
    count = bins.shape[0]
    above = torch.searchsorted(bins, target.contiguous(), right=True)
    below = (above - 1).clamp(0, count - 1)
    above = above.clamp(0, count - 1)
    same = below == above
    to_below = torch.where(same, 1.0, (bins[below] - target).abs())
    to_above = torch.where(same, 1.0, (bins[above] - target).abs())
    total = to_below + to_above + (target - target)  # the last is 0, or NaN for NaN and infinity
    return below, above, to_above / total, to_below / total


def two_hot(target: Tensor, bins: Tensor) -> Tensor:
    """Targets (...) as weights over the bins (..., K)."""
    below, above, weight_below, weight_above = two_hot_weights(target, bins)
    count = bins.shape[0]
    lower = F.one_hot(below, count) * weight_below[..., None]
    return lower + F.one_hot(above, count) * weight_above[..., None]


def two_hot_cross_entropy(log_probs: Tensor, target: Tensor, bins: Tensor) -> Tensor:
    """Cross entropy (...) of log-probabilities (..., K) to scalars (...), which get no gradient."""
    below, above, weight_below, weight_above = two_hot_weights(target.detach(), bins)
    picked = log_probs.gather(-1, torch.stack([below, above], -1))  # (..., 2)
    return -(picked * torch.stack([weight_below, weight_above], -1)).sum(-1)


def two_hot_loss(logits: Tensor, targets: Tensor, scales: Sequence[float], bins: Tensor) -> Tensor:
    """Sum of M scales times the cross entropies (...) of logits (..., K) to scalars (..., M).

    Equal to `two_hot_cross_entropy` of the log-softmax, target by target, in fewer passes.
    """
    below, above, weight_below, weight_above = two_hot_weights(targets.detach(), bins)
    index = torch.cat([below, above], -1)  # (..., 2 M)
    weights = [part.unbind(-1) for part in (weight_below, weight_above)]
    weight = torch.stack(
        [w * scale for part in weights for w, scale in zip(part, scales, strict=True)], -1
    )
    if torch.compiler.is_compiling():
        return -(torch.log_softmax(logits.float(), -1).gather(-1, index) * weight).sum(-1)
    loss: Tensor = _WeightedCrossEntropy.apply(logits.float(), index, weight)
    return loss


class _WeightedCrossEntropy(torch.autograd.Function):
    """Sum over M of weight times -log softmax(logits) at index; no gradient to the weights."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        normaliser = torch.logsumexp(logits, -1, keepdim=True)
        ctx.save_for_backward(logits, normaliser, index, weight)
        return (weight * (normaliser - logits.gather(-1, index))).sum(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, normaliser, index, weight = ctx.saved_tensors
        grad = grad.unsqueeze(-1)
        pulled = (logits - normaliser).exp_().mul_(grad * weight.sum(-1, keepdim=True))
        return pulled.scatter_add_(-1, index, -grad * weight), None, None


def two_hot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Expected bin (...) of logits (..., K); `bins` are symmetric around 0.

    Negative and positive bins are paired before summing: uniform logits give exactly 0.
    """
    probs = torch.softmax(logits.float(), -1)
    half, odd = bins.shape[0] // 2, bins.shape[0] % 2
    surplus = probs[..., half + odd :] - probs[..., :half].flip(-1)
    with torch.autocast(logits.device.type, enabled=False):  # targets are made of it: fp32
        return surplus @ bins[half + odd :]  # the middle bin, if there is one, is 0

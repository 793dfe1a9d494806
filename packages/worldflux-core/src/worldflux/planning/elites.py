"""Picking the best candidates, refitting a distribution to them, shifting plans in time."""

from __future__ import annotations

import torch
from torch import Tensor


def best(candidates: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best of (B, N, H, A) by (B, N): elites, scores, indices, best first."""
    values, index = scores.topk(count, dim=1)
    return pick(candidates, index), values, index


def pick(candidates: Tensor, index: Tensor) -> Tensor:
    """Candidates (B, N, H, A) at indices (B, K) -> (B, K, H, A)."""
    return candidates.gather(1, index[:, :, None, None].expand(-1, -1, *candidates.shape[2:]))


def moments(elites: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and std (B, H, A) of elites (B, K, H, A) with weights (B, K)."""
    weights = weights[:, :, None, None]
    total = weights.sum(1) + 1e-9
    mean = (weights * elites).sum(1) / total
    variance = (weights * (elites - mean.unsqueeze(1)).square()).sum(1) / total
    return mean, variance.sqrt()


def shift(plan: Tensor, fill: Tensor, steps: int) -> Tensor:
    """A plan (..., H, A) `steps` later; the new last steps are `fill`, broadcastable to it."""
    end = fill.expand_as(plan)[..., :steps, :]
    return torch.cat([plan[..., steps:, :], end], -2)

"""Scalars as distributions over bins that are linear in symlog space (2310.16828, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux.nn import two_hot as bins_of
from worldflux.nn.symlog import symexp, symlog


def symlog_target(target: Tensor, bins: Tensor) -> Tensor:
    """Scalars (...) in the bins' space, clamped to their range; NaN for what is not finite."""
    return symlog(target).clamp(bins[0], bins[-1]) + (target - target)


def two_hot(target: Tensor, bins: Tensor) -> Tensor:
    """Scalars (...) as weights (..., K) of the two nearest bins."""
    return bins_of.two_hot(symlog_target(target, bins), bins)


def cross_entropy(logits: Tensor, target: Tensor, bins: Tensor) -> Tensor:
    """Cross entropy (...) of logits (..., K) against scalar targets (...)."""
    log_probs = torch.log_softmax(logits.float(), -1)
    return bins_of.two_hot_cross_entropy(log_probs, symlog_target(target, bins), bins)


def expected(logits: Tensor, bins: Tensor) -> Tensor:
    """The scalar (...) that logits (..., K) stand for."""
    return symexp(bins_of.two_hot_mean(logits, bins))

"""The policy prior: a Gaussian squashed by tanh, its entropy scaled by the action's size."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux_tdmpc2.networks import mlp


class Sample(NamedTuple):
    """An action (..., A), the mean action (..., A), log std (..., A) and entropies (...)."""

    action: Tensor
    mean: Tensor
    log_std: Tensor
    entropy: Tensor
    scaled_entropy: Tensor


def bounded_log_std(raw: Tensor, low: float, high: float) -> Tensor:
    """Raw outputs squashed into [low, high], elementwise (`common/math.py:log_std`)."""
    return low + 0.5 * (high - low) * (torch.tanh(raw) + 1)


def gaussian_log_prob(eps: Tensor, log_std: Tensor) -> Tensor:
    """Log density (...) at `eps` (..., A) standard deviations from the mean."""
    return (-0.5 * eps.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


def squash(mean: Tensor, action: Tensor, log_prob: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and action (..., A) through tanh, with the log density (...) that belongs to them."""
    mean, action = torch.tanh(mean), torch.tanh(action)
    volume = torch.log(F.relu(1 - action.square()) + 1e-6).sum(-1)
    return mean, action, log_prob - volume


class Policy(nn.Module):
    """Features (..., D) to a sample; the noise comes from the caller."""

    def __init__(
        self, inputs: int, hidden: int, actions: int, log_std_min: float, log_std_max: float
    ) -> None:
        super().__init__()
        self.net = mlp(inputs, [hidden, hidden], 2 * actions)
        self.range = (log_std_min, log_std_max)

    def forward(self, features: Tensor, eps: Tensor, mask: Tensor | None = None) -> Sample:
        """`eps` (..., A) is standard normal, `mask` (..., A) is 0 on dimensions not in use.

        The scaled entropy counts each dimension as often as there are dimensions; the quotient
        of densities is that of `common/world_model.py:WorldModel.pi`.
        """
        mean, log_std = self.net(features).float().chunk(2, -1)
        log_std = bounded_log_std(log_std, *self.range)
        size: Tensor | float = eps.shape[-1]
        if mask is not None:
            mean, log_std, eps = mean * mask, log_std * mask, eps * mask
            size = mask.sum(-1)
        gaussian = gaussian_log_prob(eps, log_std)
        mean, action, log_prob = squash(mean, mean + eps * log_std.exp(), gaussian)
        scaled = -log_prob * (gaussian * size / (log_prob + 1e-8))
        return Sample(action, mean, log_std, -log_prob, scaled)

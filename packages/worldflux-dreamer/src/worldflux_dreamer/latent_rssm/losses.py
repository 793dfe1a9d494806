"""Losses that PlaNet, DreamerV1 and V2 share, as functions of tensors in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux_dreamer.shared_losses import lambda_return


def normal_loss(mean: Tensor, target: Tensor, event: int) -> Tensor:
    """Negative log density (...) of a unit normal, without its constant, over `event` last axes."""
    squares = 0.5 * (mean.float() - target.float()).square()
    return squares.flatten(squares.ndim - event).sum(-1) if event else squares


def transformed_reward(reward: Tensor, how: str) -> Tensor:
    """Rewards as the model learns them, elementwise: `identity`, `tanh` or `sign`."""
    if how == "identity":
        return reward
    return torch.tanh(reward) if how == "tanh" else torch.sign(reward)


def critic_loss(value: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted regression (scalar) of values (N, T) to targets, which get no gradient."""
    return (weight.detach() * normal_loss(value, target.detach(), 0)).mean()


def lambda_targets(reward: Tensor, discount: Tensor, value: Tensor, lam: float) -> Tensor:
    """Lambda-returns (N, T) of states 0..T-1, from reward, discount (N, T) and value (N, T+1).

    target_t = r_t + d_t ((1 - lam) v_{t+1} + lam target_{t+1}) and target_T = v_T: here a state's
    return begins with the reward that arrived with it (1912.01603, eq. 6; 2010.02193, eq. 4).
    """
    assert value.shape[1] == reward.shape[1] + 1 == discount.shape[1] + 1, value.shape
    before = torch.zeros_like(reward[:, :1])
    shifted = [torch.cat([before, x], 1) for x in (1 - discount, reward, value[:, 1:])]
    nowhere = torch.zeros_like(shifted[0])
    return lambda_return(nowhere, shifted[0], shifted[1], shifted[2], 1.0, lam)


def reach_weights(first: Tensor, discount: Tensor) -> Tensor:
    """Discounted probability (N, T) of getting to states 0..T-1, without gradient.

    `first` (N,) is that of state 0, `discount` (N, >= T-1) what follows each state; a state's own
    discount says whether the *next* one counts.
    """
    steps = torch.cat([first[:, None], discount], 1)
    return steps.cumprod(1).detach()


def freed(means: dict[str, Tensor], names: tuple[str, ...], free_nats: float) -> dict[str, Tensor]:
    """Batch means with those in `names` clipped from below: less than `free_nats` costs nothing."""
    return {k: v.clamp(min=free_nats) if k in names else v for k, v in means.items()}

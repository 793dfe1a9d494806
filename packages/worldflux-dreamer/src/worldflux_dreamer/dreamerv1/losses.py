"""DreamerV1's actor and critic losses as functions of imagined tensors."""

from __future__ import annotations

from torch import Tensor

from worldflux_dreamer.latent_rssm.losses import lambda_targets, reach_weights


def imagined_returns(
    reward: Tensor, going_on: Tensor, value: Tensor, live: Tensor, lam: float
) -> tuple[Tensor, Tensor]:
    """Returns and weights (N, H-1) of imagined states 1..H-1, from (N, H) of states 1..H.

    The last state only bootstraps. A state's weight is the discounted probability of getting to
    it from state 1; nothing counts where the sequence began at a terminal step (`live` 0).
    """
    returns = lambda_targets(reward[:, :-1], going_on[:, :-1], value, lam)
    return returns, reach_weights(live, going_on[:, :-2])


def actor_loss(returns: Tensor, weight: Tensor) -> Tensor:
    """Minus the weighted returns (scalar): their gradient flows back through the dynamics."""
    return -(weight * returns).mean()

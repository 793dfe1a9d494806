"""DreamerV2's actor and critic losses as functions of imagined tensors."""

from __future__ import annotations

from torch import Tensor


def actor_objective(log_prob: Tensor, target: Tensor, baseline: Tensor, mix: float) -> Tensor:
    """What the actor climbs (N, T): `mix` of the return itself (whose gradient flows through the
    dynamics) and the rest REINFORCE with a baseline (2010.02193, eq. 6)."""
    reinforce = log_prob * (target - baseline).detach()
    if mix == 0:
        return reinforce
    return target if mix == 1 else mix * target + (1 - mix) * reinforce


def actor_loss(objective: Tensor, entropy: Tensor, weight: Tensor, scale: float) -> Tensor:
    """Minus the weighted objective and entropy bonus (scalar)."""
    return -(weight.detach() * (objective + scale * entropy)).mean()

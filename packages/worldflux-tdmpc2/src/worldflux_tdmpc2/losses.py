"""TD-MPC2's loss terms as functions of tensors (2310.16828, eq. 3-5). Sequences are (B, H, ...)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux_tdmpc2.distribution import cross_entropy


def td_target(
    reward: Tensor, terminal: Tensor, next_value: Tensor, discount: Tensor | float
) -> Tensor:
    """One-step targets (B, H); only a termination ends the return, a time limit does not."""
    return reward + discount * (1 - terminal.float()) * next_value


def consistency(latent: Tensor, target: Tensor) -> Tensor:
    """Mean squared error (B, H) of predicted latents (B, H, D) to encoded ones, held fixed."""
    return (latent - target.detach()).square().mean(-1)


def value_cross_entropy(logits: Tensor, target: Tensor, bins: Tensor) -> Tensor:
    """Cross entropy (B, H) of all heads' logits (E, B, H, K) to one target, averaged over heads."""
    return cross_entropy(logits, target.expand(logits.shape[:-1]), bins).mean(0)


def termination_cross_entropy(logit: Tensor, terminal: Tensor) -> Tensor:
    """Binary cross entropy (B, H)."""
    return F.binary_cross_entropy_with_logits(logit, terminal.float(), reduction="none")


def time_weights(steps: int, rho: float, like: Tensor) -> Tensor:
    """rho^t (steps,) for t = 0 .. steps - 1, on the device of `like` (any shape)."""
    return rho ** torch.arange(steps, device=like.device, dtype=torch.float32)


def policy_loss(
    value: Tensor, scaled_entropy: Tensor, scale: Tensor, entropy_weight: float
) -> Tensor:
    """Terms (B, H+1) that fall with the scaled value and the policy's entropy (eq. 5)."""
    return -(entropy_weight * scaled_entropy + value / scale)


def termination_scores(probability: Tensor, terminal: Tensor) -> tuple[Tensor, Tensor]:
    """Rate of terminations and F1 score of predicting them, of probabilities and truths (B,)."""
    truth, guess = terminal.bool(), probability > 0.5
    hits = (guess & truth).sum()
    recall = hits / (truth.sum() + 1e-9)
    precision = hits / (guess.sum() + 1e-9)
    f1 = 2 * precision * recall / (precision + recall + 1e-9)
    return truth.float().mean(), f1

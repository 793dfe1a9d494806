"""DreamerV3's losses and distributions as functions of tensors, in float32.

Source paths are of danijar/dreamerv3. `K` classes, `S` latents, `A` action dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worldflux.nn.symlog import symlog
from worldflux.nn.two_hot import two_hot_loss
from worldflux_dreamer.categorical import categorical_kl, softmax


def mixed_probs(logits: Tensor, unimix: float) -> Tensor:
    """Probabilities (..., K) with a share `unimix` of uniform mixed in (outs.py:Categorical)."""
    probs = softmax(logits.float())
    return (1 - unimix) * probs + unimix / logits.shape[-1] if unimix else probs


def mixed_log_probs(logits: Tensor, unimix: float) -> Tensor:
    """Logarithm of `mixed_probs`: logits (..., K) to log probabilities (..., K)."""
    if not unimix:
        return torch.log_softmax(logits.float(), -1)
    return mixed_probs(logits, unimix).log()


def kl_losses(
    post: Tensor, prior: Tensor, unimix: float, free_nats: float
) -> tuple[Tensor, Tensor]:
    """Dynamics and representation loss (...) of logits (..., S, K): KL per step, then free nats.

    dyn pulls the prior to the posterior, rep the other way; both are clipped from below after the
    sum over latents (rssm.py:RSSM.loss).
    """
    log_post, log_prior = mixed_log_probs(post, unimix), mixed_log_probs(prior, unimix)
    dyn = categorical_kl(log_post.detach(), log_prior)
    rep = categorical_kl(log_post, log_prior.detach())
    return dyn.clamp(min=free_nats), rep.clamp(min=free_nats)


def continue_target(is_terminal: Tensor, horizon: float, contdisc: bool) -> Tensor:
    """1 where the episode goes on, times 1 - 1/horizon, elementwise (agent.py:Agent.loss)."""
    going_on = (~is_terminal).float()
    return going_on * (1 - 1 / horizon) if contdisc else going_on


def normal_log_prob(mean: Tensor, std: Tensor, event: Tensor) -> Tensor:
    """Log density (...) of (..., A), summed over A; no squashing correction (outs.py:Normal)."""
    z = (event - mean) / std
    return -(0.5 * z.square() + std.log() + 0.5 * math.log(2 * math.pi)).sum(-1)


def normal_entropy(std: Tensor) -> Tensor:
    """Entropy (...) of a diagonal normal with std (..., A)."""
    return (0.5 * (2 * math.pi * std.square()).log() + 0.5).sum(-1)


def image_loss(prediction: Tensor, image: Tensor) -> Tensor:
    """Squared error (...) on [0, 1] images (..., C, Y, X), summed; uint8 ones are scaled."""
    target = image.float() / 255 if image.dtype == torch.uint8 else image.float()
    return (prediction.float() - target).square().sum((-3, -2, -1))


def vector_loss(prediction: Tensor, vector: Tensor) -> Tensor:
    """Squared error (...) in symlog space over (..., N), summed (outs.py:MSE, Agg)."""
    return (prediction.float() - symlog(vector.float())).square().sum(-1)


def critic_loss(
    logits: Tensor, target: Tensor, slow_value: Tensor, bins: Tensor, slowreg: float
) -> Tensor:
    """Cross entropy (B, T) to `target` plus `slowreg` times that to the slow critic's value."""
    return two_hot_loss(logits, torch.stack([target, slow_value], -1), (1.0, slowreg), bins)


def actor_loss(
    log_prob: Tensor, entropy: Tensor, advantage: Tensor, weight: Tensor, actent: float
) -> Tensor:
    """REINFORCE with an entropy bonus (B, T), for discrete and continuous actions alike."""
    return -weight.detach() * (log_prob * advantage.detach() + actent * entropy)


def imagination_weight(continues: Tensor, discount: float) -> Tensor:
    """Probability (B, T) that each imagined state is reached, root's own continue included."""
    return (discount * continues).cumprod(1) / discount

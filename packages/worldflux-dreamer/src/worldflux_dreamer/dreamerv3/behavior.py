"""Actor and critic learning: imagined sequences, and the critic's loss on replayed ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux_dreamer import shared_losses
from worldflux_dreamer.dreamerv3 import losses
from worldflux_dreamer.dreamerv3.config import DreamerV3Config
from worldflux_dreamer.dreamerv3.policy import BoundedNormal, Categoricals
from worldflux_dreamer.dreamerv3.returns import ReturnNorm


@dataclass
class Critics:
    """Critic logits (N, T, bins), their expectation and the slow critic's (N, T), and the bins."""

    logits: Tensor
    value: Tensor
    slow: Tensor
    bins: Tensor

    def loss(self, target: Tensor, slowreg: float) -> Tensor:
        """Loss (N, T-1) to targets (N, T-1); the last state only serves to bootstrap."""
        target = torch.cat([target.detach(), torch.zeros_like(target[:, :1])], 1)
        return losses.critic_loss(self.logits, target, self.slow, self.bins, slowreg)[:, :-1]


@dataclass
class Imagined:
    """What the world model predicts along imagined states (N, H+1), actions included."""

    action: Tensor
    reward: Tensor
    going_on: Tensor


def imagination_losses(
    imagined: Imagined,
    policy: BoundedNormal | Categoricals,
    critics: Critics,
    norm: ReturnNorm,
    config: DreamerV3Config,
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Actor and critic loss (N, H), lambda-returns (N, H) and metrics (agent.py:imag_loss).

    Rewards count from the first imagined step on; the root's own continue enters the weights. The
    norm sees the returns before they are used.
    """
    c, agent = config.model, config.agent
    discount = 1.0 if c.contdisc else 1 - 1 / c.horizon
    value = (critics.slow if agent.slow_target else critics.value).detach()
    weight = losses.imagination_weight(imagined.going_on, discount)
    never = torch.zeros_like(imagined.going_on)
    ret = shared_losses.lambda_return(
        never, 1 - imagined.going_on, imagined.reward, value, discount, agent.lam
    )
    norm.update(ret)
    advantage = (ret - value[:, :-1]) / norm.scale()
    log_prob = policy.log_prob(imagined.action)[:, :-1]
    entropy = policy.entropy()[:, :-1]
    terms = {
        "policy": losses.actor_loss(log_prob, entropy, advantage, weight[:, :-1], agent.actent),
        "value": weight[:, :-1].detach() * critics.loss(ret, agent.slowreg),
    }
    metrics = _metrics(imagined, critics, norm, ret, advantage, weight, entropy)
    return terms, ret, metrics


def replay_loss(
    last: Tensor,
    terminal: Tensor,
    reward: Tensor,
    boot: Tensor,
    critics: Critics,
    config: DreamerV3Config,
) -> tuple[Tensor, Tensor]:
    """Critic loss and lambda-returns (B, T-1) on replayed steps (agent.py:repl_loss).

    Real rewards; `boot` (B, T) is the imagined return from each step; no loss at `last`.
    """
    discount = 1 - 1 / config.model.horizon
    ret = shared_losses.lambda_return(last, terminal, reward, boot, discount, config.agent.lam)
    weight = (~last).float()[:, :-1]
    return weight * critics.loss(ret, config.agent.slowreg), ret


@torch.no_grad()
def _metrics(
    imagined: Imagined,
    critics: Critics,
    norm: ReturnNorm,
    ret: Tensor,
    advantage: Tensor,
    weight: Tensor,
    entropy: Tensor,
) -> dict[str, Tensor]:
    scaled = (ret - norm.low) / norm.scale()
    return {
        "adv": advantage.mean(),
        "adv_std": advantage.std(correction=0),
        "adv_mag": advantage.abs().mean(),
        "rew": imagined.reward.mean(),
        "con": imagined.going_on.mean(),
        "ret": scaled.mean(),
        "ret_min": scaled.min(),
        "ret_max": scaled.max(),
        "ret_rate": (scaled.abs() >= 1.0).float().mean(),
        "val": critics.value.mean(),
        "tar": ret.mean(),
        "weight": weight.mean(),
        "slowval": critics.slow.mean(),
        "entropy": entropy.mean(),
    }

"""The loss of DIAMOND's policy and value on imagined steps (2405.12399, algorithm 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worldflux.distributed import mean
from worldflux.nn.actor_critic import lambda_returns, reinforce
from worldflux_diamond.diamond.config import AgentConfig
from worldflux_diamond.diamond.dreams import Dreamt


def actor_critic_losses(config: AgentConfig, steps: Dreamt) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss over imagined steps (B, H, ...), its parts and metrics, all scalars.

    Rewards count by their sign. A dream that was cut off, or is the update's last step, goes on
    with the value of where it led.
    """
    c = config
    reward, value = steps.reward.sign(), steps.value.float()
    with torch.no_grad():
        returns = lambda_returns(
            reward, steps.ended, steps.next_value.float(), c.gamma, c.lam, cut=steps.cut
        )
    terms = reinforce(steps.logits, steps.action, returns - value, c.entropy_weight)
    terms["value"] = c.value_weight * (value - returns).square()
    parts = {name: mean(term, steps.live) for name, term in terms.items()}
    chances = steps.logits.detach().float().log_softmax(-1)
    entropy = -(chances.exp() * chances).sum(-1) / math.log(2)
    return torch.stack(list(parts.values())).sum(), {
        **{f"loss/{name}": part for name, part in parts.items()},
        "entropy_bits": mean(entropy, steps.live),
        "dreams/return": mean(returns, steps.live),
        "dreams/reward": mean(reward, steps.live),
        "dreams/ended": mean(steps.ended.float(), steps.live),
        "dreams/masked": (~steps.live).float().sum(),
    }

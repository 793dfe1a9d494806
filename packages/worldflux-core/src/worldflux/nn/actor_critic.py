"""Learning a policy from imagined steps: lambda-returns and the REINFORCE loss with a baseline."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(
    reward: Tensor,
    ended: Tensor,
    next_value: Tensor,
    gamma: float,
    lam: float,
    cut: Tensor | None = None,
) -> Tensor:
    """Returns (B, H) of steps with rewards (B, H): R = r + gamma live ((1 - lam) v' + lam R').

    `next_value` (B, H) is the value of where a step led, from the last of which it bootstraps.
    Nothing follows a step that `ended` (B, H). After one that is `cut` (B, H; a time limit) the
    return bootstraps at once.
    """
    live = gamma * (1 - ended.to(reward))
    carry = torch.full_like(reward, lam) if cut is None else lam * (1 - cut.to(reward))
    interim, decay = reward + live * (1 - carry) * next_value, live * carry
    following, found = next_value[:, -1], []
    for t in reversed(range(reward.shape[1])):
        following = interim[:, t] + decay[:, t] * following
        found.append(following)
    return torch.stack(found[::-1], 1)


def before_end(ended: Tensor) -> Tensor:
    """Steps (B, H) up to the first that `ended` (B, H), that one included."""
    return ended.long().cumsum(1) - ended.long() == 0


def reinforce(
    logits: Tensor, action: Tensor, advantage: Tensor, entropy_weight: float
) -> dict[str, Tensor]:
    """Terms (...) of a policy's loss: "policy", -log p times the advantage, and "entropy".

    Of logits (..., A), chosen indices (...) and advantages (...), which get no gradient. The
    entropy's term is weighted already, and falls as the entropy rises.
    """
    logp = torch.log_softmax(logits.float(), -1)
    chosen = logp.gather(-1, action.long()[..., None])[..., 0]
    entropy = -(logp.exp() * logp).sum(-1)
    return {"policy": -chosen * advantage.detach(), "entropy": -entropy_weight * entropy}

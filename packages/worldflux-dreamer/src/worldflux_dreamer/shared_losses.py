"""Losses and returns that more than one Dreamer has, as functions of tensors in float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux import distributed


def lambda_return(
    last: Tensor,
    terminal: Tensor,
    reward: Tensor,
    boot: Tensor,
    discount: float,
    lam: float,
) -> Tensor:
    """Lambda-returns (B, T-1) of sequences (B, T) (agent.py:lambda_return).

    `terminal` may be a probability. After `last` the return bootstraps from `boot` at once.
    """
    live = (1 - terminal.float())[:, 1:] * discount
    carry = (1 - last.float())[:, 1:] * lam
    interim = reward[:, 1:] + (1 - carry) * live * boot[:, 1:]
    returns = [boot[:, -1]]
    decay = live * carry
    for t in reversed(range(live.shape[1])):
        returns.append(interim[:, t] + decay[:, t] * returns[-1])
    return torch.stack(returns[:0:-1], 1)


def binary_cross_entropy(logit: Tensor, target: Tensor) -> Tensor:
    """Cross entropy (...) to targets in [0, 1] (outs.py:Binary)."""
    logit = logit.float()
    return -(target * F.logsigmoid(logit) + (1 - target) * F.logsigmoid(-logit))


def choice_loss(logits: Tensor, choices: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Cross entropy (...) of logits (..., sum of counts) to indices (..., N), summed over N."""
    parts = logits.split(counts, -1)
    logs = [torch.log_softmax(part.float(), -1) for part in parts]
    picked = [log.gather(-1, choices[..., i : i + 1].long()) for i, log in enumerate(logs)]
    return -torch.cat(picked, -1).sum(-1)


def masked_mean(term: Tensor, mask: Tensor | None) -> Tensor:
    """Mean (0-d) of a term (B, T'), over the steps where `mask` (B, T) holds, on all ranks."""
    return distributed.mean(term, None if mask is None else mask[:, : term.shape[1]])

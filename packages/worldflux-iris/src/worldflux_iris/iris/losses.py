"""What tokenizer and transformer learn from a batch, term by term."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.batch import Batch

IGNORED = -100
"""A label that does not count, as torch's cross entropy has it."""


class Labels(NamedTuple):
    """What the transformer has to predict, padding and the unknown `IGNORED`."""

    tokens: Tensor
    """The token after each (B, T * N - 1), in the order of the sequence."""
    signs: Tensor
    """1 + the sign of the reward that follows each action (B, T)."""
    ends: Tensor
    """Whether the episode terminates then (B, T)."""


def labels(batch: Batch, tokens: Tensor, predict_last: bool) -> Labels:
    """Labels of the first T of T + 1 steps, whose frames' tokens are (B, T, N).

    The last step gives reward and end of the action before it. Where the frame that an episode
    ends with is not learnt, its tokens are `IGNORED`; no token is predicted across episodes.
    """
    pairs = batch.transitions()
    seen = torch.ones_like(batch.is_first) if batch.mask is None else batch.mask
    if not predict_last:
        seen = seen & ~batch.is_last
    frames = tokens.masked_fill(~seen[:, :-1, None], IGNORED)
    frames[:, :, 0].masked_fill_(batch.is_first[:, :-1], IGNORED)
    signs = pairs.require("next_reward").sign().long() + 1
    return Labels(
        frames.flatten(1)[:, 1:],
        signs.masked_fill(~pairs.valid, IGNORED),
        batch.is_terminal[:, 1:].long().masked_fill(~pairs.valid, IGNORED),
    )


def in_order(logits: Tensor) -> Tensor:
    """Logits (B, T, N, V) of `TokenTransformer.ahead` as of the tokens after each (B, T*N-1, V)."""
    own = torch.cat([logits[:, :, 1:], logits[:, :, :1]], 2)
    return own.flatten(1, 2)[:, :-1]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy (...) of logits (..., K) to indices (...), 0 where they are `IGNORED`."""
    flat = F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
    return flat.view(target.shape)

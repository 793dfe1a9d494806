"""MaskGIT (2202.04200): the tokens of a frame, the surest first, in a fixed number of rounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from worldflux_genie.config import DynamicsConfig

STEEPNESS = 5.0
"""k of the exponential schedule (tinyworlds)."""


class Round(NamedTuple):
    """Round `number`: so many tokens are committed when it is over, drawn at this temperature."""

    number: int
    committed: int
    temperature: float


def share(schedule: str, step: int, steps: int) -> float:
    """The part of a frame's tokens that is committed after `step` (from 0) of `steps` rounds."""
    done = (step + 1) / steps
    if schedule == "cosine":
        return 1 - math.cos(math.pi * done / 2)
    if schedule == "linear":
        return done
    return math.expm1(STEEPNESS * step / steps) / math.expm1(STEEPNESS)


def committed(schedule: str, tokens: int, steps: int) -> list[int]:
    """How many of `tokens` tokens should be committed after each of `steps` rounds; at last all."""
    up = math.ceil if schedule == "exponential" else round
    counts = [up(tokens * share(schedule, step, steps)) for step in range(steps)]
    return [*counts[:-1], tokens]


def rounds(config: DynamicsConfig, tokens: int) -> Iterator[Round]:
    """The rounds that commit something, for frames of `tokens` tokens.

    The others would change nothing: what is drawn in a round and not committed is drawn again. The
    exponential schedule commits at least a sixteenth in every round, as tinyworlds does.
    """
    before, least = 0, max(tokens // 16, 1) if config.schedule == "exponential" else 0
    for step, scheduled in enumerate(committed(config.schedule, tokens, config.steps)):
        count = min(max(scheduled, before + least), tokens)
        if count > before:
            part = share(config.schedule, step, config.steps)
            if config.schedule == "exponential":
                part = count / tokens
            yield Round(step, count, config.temperature * part)
        before = max(before, count)


class Drawn(NamedTuple):
    """After a round: tokens (B, N), which are still hidden (B, N), how sure each draw was."""

    tokens: Tensor
    hidden: Tensor
    confidence: Tensor


def draw(logits: Tensor, tokens: Tensor, hidden: Tensor, now: Round, noise: Tensor | None) -> Drawn:
    """One round on logits (B, N, V), tokens (B, N) and hidden (B, N).

    Every hidden token is drawn, with Gumbel `noise` (B, N, V), or is the likeliest. Per row those
    with the largest probability are committed until exactly `now.committed` are; committed tokens
    stay as they are.
    """
    scaled = logits.float() / now.temperature
    found = (scaled if noise is None else scaled + noise).argmax(-1)
    tokens = torch.where(hidden, found, tokens)
    sure = scaled.softmax(-1).gather(-1, found[..., None])[..., 0]
    rank = torch.where(hidden, sure, torch.inf)  # (B, N)
    best = rank.topk(now.committed, -1).indices
    return Drawn(tokens, torch.ones_like(hidden).scatter(-1, best, False), sure * hidden)

"""Choices from logits: drawn, likeliest, or forced by the caller."""

from __future__ import annotations

from torch import Tensor

from worldflux.core.rand import Rand, gumbel


def sampled(logits: Tensor, name: str, rand: Rand | None, deterministic: bool = False) -> Tensor:
    """Indices (...) from logits (..., K): the likeliest, or a sample.

    The draw `name` forces the choice itself, `name` + "_noise" (..., K) the noise it is made with.
    """
    rand = rand or Rand()
    if deterministic:
        return logits.argmax(-1)
    forced = rand.given(name)
    if forced is not None:
        return forced.long().to(logits.device)
    noise = rand.draw(f"{name}_noise", tuple(logits.shape), gumbel, device=logits.device)
    return (logits.float() + noise).argmax(-1)


def noise_for(
    shape: tuple[int, ...], name: str, rand: Rand, like: Tensor, deterministic: bool = False
) -> Tensor | None:
    """Gumbel noise of `shape` for choices that follow each other; None for the likeliest.

    On the device of `like` (any shape).
    """
    if deterministic:
        return None
    return rand.draw(f"{name}_noise", shape, gumbel, device=like.device)

"""Every episode has a seed of its own, so that it can be played again."""

from __future__ import annotations

from numpy.random import SeedSequence

_POSITIVE_INT32 = 0x7FFFFFFF


def episode_seed(base: int, episode: int) -> int:
    """The seed of an environment's `episode`-th episode; episode 0 has `base` itself."""
    if episode == 0:
        return base
    return int(SeedSequence((base, episode)).generate_state(1)[0]) & _POSITIVE_INT32


def entropy_seed() -> int:
    """A fresh seed from the operating system, for a reset that was given none."""
    return int(SeedSequence().generate_state(1)[0]) & _POSITIVE_INT32

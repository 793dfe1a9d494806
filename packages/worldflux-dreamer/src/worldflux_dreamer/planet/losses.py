"""PlaNet's divergence loss."""

from __future__ import annotations

from torch import Tensor


def beyond_free_nats(kl: Tensor, free_nats: float) -> Tensor:
    """KL (...) less the nats that are free at every step, never below 0 (utility.py)."""
    return (kl - free_nats).clamp(min=0)

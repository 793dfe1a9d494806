"""Zeros of spaces."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.specs import TensorSpec


def zeros_of(
    specs: Mapping[str, TensorSpec], lead: tuple[int, ...], device: torch.device | None = None
) -> dict[str, Tensor]:
    """Zeros (*lead, *shape) of each space, in its type; on torch's default device without one."""
    return {
        key: torch.zeros(*lead, *spec.shape, dtype=getattr(torch, spec.dtype), device=device)
        for key, spec in specs.items()
    }

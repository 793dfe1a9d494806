"""Random actions while collecting."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux.core.rand import Rand, randint, uniform


def explored(action: Tensor, choices: int, epsilon: float, rand: Rand) -> Tensor:
    """Actions (B,), a share `epsilon` of them replaced by random ones.

    Draws: "explore" (B,) in [0, 1) and "random" (B,).
    """
    shape, device = tuple(action.shape), action.device
    chance = rand.draw("explore", shape, uniform, device=device)
    other = rand.draw("random", shape, randint(choices), device=device)
    return torch.where(chance < epsilon, other, action)

"""SIGReg: embeddings are to look like a standard normal along every direction (2511.08544)."""

from __future__ import annotations

import torch
from torch import Tensor

LAST_KNOT = 3.0


def knots(count: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points t (K,) in [0, 3], the normal's characteristic function there, and their weights.

    The weights are those of the trapezoid rule for an even function, under a normal window.
    """
    t = torch.linspace(0, LAST_KNOT, count, dtype=torch.float32, device=like.device)
    step = LAST_KNOT / (count - 1)
    weights = torch.full_like(t, 2 * step)
    weights[0] = weights[-1] = step
    phi = (-t.square() / 2).exp()
    return t, phi, weights * phi


def sigreg(z: Tensor, directions: Tensor, count: int = 17) -> Tensor:
    """The mean Epps-Pulley statistic (0-d) of embeddings z (T, B, D), each step's batch by itself.

    `directions` (D, M) are normal draws; they are made unit vectors here. About 1 for a standard
    normal, whatever B; large for anything else, most of all for a single point.
    """
    z = z.float()
    unit = directions / directions.norm(dim=0)
    t, phi, weights = knots(count, z)
    along = (z @ unit)[..., None] * t  # (T, B, M, K)
    real = along.cos().mean(1) - phi  # (T, M, K)
    imaginary = along.sin().mean(1)
    statistic = (real.square() + imaginary.square()) @ weights * z.shape[1]  # (T, M)
    return statistic.mean()

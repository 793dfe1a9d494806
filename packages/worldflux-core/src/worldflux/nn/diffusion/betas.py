"""Noise schedules of discrete diffusion.

They are float64 arrays of betas (T,), the variance that each step adds (Ho et al. 2020,
2006.11239; Nichol and Dhariwal 2021, 2102.09672).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ContractError, did_you_mean

Floats = NDArray[np.float64]
BetaSchedule = Literal["linear", "quad", "const", "jsd", "warmup10", "warmup50"]
_LARGEST = 0.999


def betas(kind: BetaSchedule, low: float, high: float, steps: int) -> Floats:
    """The betas (T,) from `low` to `high`."""
    if kind == "linear":
        return np.linspace(low, high, steps, dtype=np.float64)
    if kind == "quad":
        return np.linspace(math.sqrt(low), math.sqrt(high), steps, dtype=np.float64) ** 2
    if kind == "const":
        return np.full(steps, high, np.float64)
    if kind == "jsd":
        return 1.0 / np.linspace(steps, 1, steps, dtype=np.float64)
    if kind in ("warmup10", "warmup50"):
        rising = int(steps * int(kind.removeprefix("warmup")) / 100)
        found = np.full(steps, high, np.float64)
        found[:rising] = np.linspace(low, high, rising, dtype=np.float64)
        return found
    known = ("linear", "quad", "const", "jsd", "warmup10", "warmup50")
    raise ContractError(
        f"No schedule of betas is called {kind!r}.{did_you_mean(kind, known)} "
        f"Schedules: {', '.join(known)}."
    )


def linear_betas(steps: int) -> Floats:
    """From 1e-4 to 0.02 in 1000 steps; the same noise in all over another number of steps."""
    scale = 1000 / steps
    return betas("linear", scale * 1e-4, scale * 0.02, steps)


def cosine_betas(steps: int) -> Floats:
    """Betas whose clean share falls like a squared cosine (Nichol and Dhariwal, eq. 17)."""
    share = np.arange(steps + 1, dtype=np.float64) / steps
    clean = np.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - clean[1:] / clean[:-1], _LARGEST)


def respaced(original: Floats, kept: list[int]) -> Floats:
    """The betas of a process that takes only the `kept` steps: the same noise at each of them."""
    clean = np.cumprod(1 - original)[kept]
    return 1 - clean / np.concatenate([[1.0], clean[:-1]])

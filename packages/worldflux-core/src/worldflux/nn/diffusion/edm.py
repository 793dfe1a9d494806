"""EDM (Karras et al. 2022, 2206.00364): preconditioning, noise levels, Euler and Heun sampling.

With offset noise (DIAMOND, 2405.12399) the conditioners are those of the whole noise level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from worldflux.core.rand import Rand, normal

_LEVELS = 255


@dataclass(frozen=True)
class Conditioners:
    """What scales a network's input, output and skip connection, and tells it the noise (B,)."""

    c_in: Tensor
    c_out: Tensor
    c_skip: Tensor
    c_noise: Tensor


def conditioners(sigma: Tensor, data: float = 0.5, offset: float = 0.0) -> Conditioners:
    """The scales (B,) for noise levels sigma (B,).

    `data` is the deviation of the data, `offset` that of noise shared by all pixels of a channel,
    which adds to sigma: sqrt(sigma^2 + offset^2) is the noise there is.
    """
    whole = sigma.square() + offset**2
    c_skip = data**2 / (whole + data**2)
    return Conditioners(
        c_in=(whole + data**2).rsqrt(),
        c_out=whole.sqrt() * c_skip.sqrt(),
        c_skip=c_skip,
        c_noise=whole.log() / 8,
    )


def per_row(scale: Tensor, like: Tensor) -> Tensor:
    """A scale (B,) with as many axes as `like` (B, ...)."""
    return scale.reshape(-1, *[1] * (like.ndim - 1))


def denoised(output: Tensor, noisy: Tensor, by: Conditioners) -> Tensor:
    """The clean data (B, ...) that a network's output (B, ...) for `noisy` (B, ...) stands for."""
    return per_row(by.c_skip, noisy) * noisy + per_row(by.c_out, noisy) * output


def network_target(clean: Tensor, noisy: Tensor, by: Conditioners) -> Tensor:
    """What the network should give (B, ...) for `noisy` (B, ...), so that `clean` comes out."""
    return (clean - per_row(by.c_skip, noisy) * noisy) / per_row(by.c_out, noisy)


def training_sigma(eps: Tensor, loc: float, scale: float, low: float, high: float) -> Tensor:
    """Log-normal noise levels (...) of standard normal numbers eps (...), within [low, high]."""
    return (eps * scale + loc).exp().clamp(low, high)


def quantised(x: Tensor) -> Tensor:
    """Images (...) as eight bits can hold them: clamped to [-1, 1], cut down to 256 levels.

    It gives no gradient. The level is truncated, as casting to uint8 does (DIAMOND).
    """
    levels = ((x.detach().clamp(-1, 1) + 1) / 2 * _LEVELS).to(torch.uint8)
    return levels.to(x.dtype) / _LEVELS * 2 - 1


def karras_sigmas(
    steps: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0
) -> tuple[float, ...]:
    """`steps` falling noise levels from `high` to `low`, dense near `low` for a large rho, and 0.

    One step starts at `high`.
    """
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    share = [i / max(steps - 1, 1) for i in range(steps)]
    return (*((top + s * (bottom - top)) ** rho for s in share), 0.0)


@dataclass(frozen=True)
class Churn:
    """Noise put back before a step, in levels [low, high] (Karras et al., algorithm 2)."""

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    noise: float = 1.0

    def gamma(self, sigma: float, steps: int) -> float:
        """The share by which the level rises before the step at `sigma`, one of `steps`."""
        if not self.low <= sigma <= self.high:
            return 0.0
        return min(self.amount / steps, math.sqrt(2) - 1)


def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: tuple[float, ...],
    *,
    order: int = 1,
    churn: Churn | None = None,
    rand: Rand | None = None,
) -> list[Tensor]:
    """From x (B, ...) down the noise levels: x and what it became after each step (B, ...).

    `denoise(x, sigma (B,))` gives the clean data (B, ...). Order 1 takes Euler steps, order 2
    Heun's, with an Euler step at the end. The draws are "churn" (B, ...), one for every step
    (`rand.at`) that puts noise back.
    """
    churn, path = churn or Churn(), [x]
    steps, drawn = len(sigmas) - 1, 0
    for sigma, after in pairwise(sigmas):
        gamma = churn.gamma(sigma, steps)
        level = sigma * (1 + gamma)
        if gamma > 0:
            eps = (rand or Rand()).at(drawn).draw("churn", tuple(x.shape), normal, device=x.device)
            x = x + eps * (churn.noise * math.sqrt(level**2 - sigma**2))
            drawn += 1
        slope = (x - denoise(x, x.new_full(x.shape[:1], sigma))) / level
        step = after - level
        moved = x + slope * step
        if order == 2 and after > 0:
            there = (moved - denoise(moved, x.new_full(x.shape[:1], after))) / after
            moved = x + (slope + there) / 2 * step
        x = moved
        path.append(x)
    return path

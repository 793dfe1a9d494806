"""Noise that is correlated in time."""

from __future__ import annotations

import torch
from torch import Tensor


def colored(white: Tensor, beta: float) -> Tensor:
    """Standard normal (..., H, A) to noise with power spectrum 1/f^beta over H, unit variance.

    Spectral shaping of Timmer & Koenig (1995), used by iCEM (2008.06389, section 3.1). The
    constant component gets the power of the lowest frequency.
    """
    horizon = white.shape[-2]
    if beta == 0 or horizon == 1:
        return white
    frequency = torch.fft.rfftfreq(horizon, device=white.device)
    amplitude = frequency.clamp_min(1.0 / horizon).pow(-beta / 2)
    both_sides = torch.fft.fftfreq(horizon, device=white.device).abs()
    power = both_sides.clamp_min(1.0 / horizon).pow(-beta).mean()
    shaped = torch.fft.rfft(white, dim=-2) * (amplitude / power.sqrt()).unsqueeze(-1)
    return torch.fft.irfft(shaped, n=horizon, dim=-2)

"""Random numbers that depend on a seed and a position only, computed for many seeds at once.

A stream per row would need a Python loop; a counter-based generator (SplitMix64, Steele et al.
2014) gives row i the same numbers whatever other rows are in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def uniforms(seeds: Tensor, count: int, offset: Tensor | int = 0) -> Tensor:
    """Numbers (N, count) in [0, 1) of the streams `seeds` (N,) int64, from position `offset` on."""
    position = torch.arange(count, device=seeds.device) + 1
    position = position + torch.as_tensor(offset, device=seeds.device)[..., None]
    bits = _mixed(_mixed(seeds)[:, None] + position * _GOLDEN)  # (N, count)
    return _shifted(bits, 11).double() * 2.0**-53


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)

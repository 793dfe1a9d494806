"""Linear layers with kernels (in, out), block-diagonal ones, and the norm-SiLU layer built on them.

Kernels keep the published layout: rows of one input part are contiguous, so that a layer on a
concatenation can be applied part by part without copies.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from worldflux.nn.init import trunc_normal_in_
from worldflux.nn.norms import RMSNormSiLU
from worldflux_dreamer.unroll import Steps, linear


class Linear(nn.Module):
    """x (..., in) @ kernel + bias, (..., out). `outscale` scales the initialisation (0: zeros)."""

    def __init__(self, size_in: int, size_out: int, outscale: float = 1.0) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(size_in, size_out))
        self.bias = nn.Parameter(torch.zeros(size_out))
        trunc_normal_in_(self.kernel, size_in, outscale)

    def forward(self, x: Tensor) -> Tensor:
        y = linear(x.reshape(-1, x.shape[-1]), self.kernel, self.bias)
        return y.view(*x.shape[:-1], y.shape[-1])


class BlockLinear(nn.Module):
    """Block-diagonal linear layer: block g maps its own slice of the input to its own slice.

    kernel (G, in/G, out/G). Its initialisation counts the whole kernel's fan-in, not one block's
    (nets.py:Initializer on a 3-d shape), so it is sqrt(G) smaller than a per-block reading.
    """

    def __init__(self, size_in: int, size_out: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.kernel = nn.Parameter(torch.empty(blocks, size_in // blocks, size_out // blocks))
        self.bias = nn.Parameter(torch.zeros(size_out))
        trunc_normal_in_(self.kernel, size_in)

    def forward(self, x: Tensor) -> Tensor:
        groups = x.reshape(-1, self.blocks, self.kernel.shape[1]).transpose(0, 1)
        return self.grouped(groups).transpose(0, 1).reshape(*x.shape[:-1], -1)

    def grouped(self, x: Tensor) -> Tensor:
        """The layer on groups (G, N, in/G) -> (G, N, out/G)."""
        return linear(x, self.kernel, self.bias)


class Dense(nn.Module):
    """Linear, RMSNorm, SiLU: (..., in) to (..., out)."""

    def __init__(self, size_in: int, size_out: int, eps: float) -> None:
        super().__init__()
        self.linear = Linear(size_in, size_out)
        self.norm = RMSNormSiLU(size_out, eps)

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.norm(self.linear(x))
        return activated

    def step(self, x: Tensor, steps: Steps) -> Tensor:
        """The layer on x (N, in) inside a loop."""
        activated: Tensor = self.norm(steps(self.linear, x))
        return activated


class MLP(nn.Sequential):
    """Dense layers of equal width."""

    def __init__(self, size_in: int, units: int, layers: int, eps: float) -> None:
        sizes = [size_in, *[units] * layers]
        super().__init__(*(Dense(a, b, eps) for a, b in pairwise(sizes)))

    @property
    def layers(self) -> list[Dense]:
        """The layers in order."""
        return [layer for layer in self if isinstance(layer, Dense)]

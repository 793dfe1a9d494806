"""The U-Net of DIAMOND's denoiser (2405.12399, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from worldflux_diamond.diamond.blocks import BlockChain, Downsample, Upsample


class UNet(nn.Module):
    """Images (B, C, Y, X) under a condition (B, D), down to small ones and up again.

    Every block on the way up sees what its counterpart on the way down gave. An image whose sides
    are no multiples of 2^(levels - 1) is padded with zeros below and on the right.
    """

    def __init__(
        self,
        cond: int,
        channels: Sequence[int],
        depths: Sequence[int],
        attention: Sequence[bool],
    ) -> None:
        super().__init__()
        before = [channels[0], *channels[:-1]]
        levels = list(zip(before, channels, depths, attention, strict=True))
        self.down = nn.ModuleList(
            BlockChain([low, *[own] * (n - 1)], [own] * n, cond, attends)
            for low, own, n, attends in levels
        )
        self.middle = BlockChain([channels[-1]] * 2, [channels[-1]] * 2, cond, True)
        self.up = nn.ModuleList(
            BlockChain([2 * own] * n + [low + own], [own] * n + [low], cond, attends)
            for low, own, n, attends in reversed(levels)
        )
        self.shrink = nn.ModuleList([nn.Identity(), *map(Downsample, channels[:-1])])
        self.grow = nn.ModuleList([nn.Identity(), *map(Upsample, reversed(channels[:-1]))])

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return self.traced(x, cond)[0]

    def traced(
        self, x: Tensor, cond: Tensor
    ) -> tuple[Tensor, list[list[Tensor]], list[list[Tensor]]]:
        """What comes out (B, C, Y, X), and everything on the way down and on the way up."""
        rows, columns = x.shape[-2:]
        whole = 2 ** (len(self.down) - 1)
        x = F.pad(x, (0, _missing(columns, whole), 0, _missing(rows, whole)))
        down, up = [], []
        for chain, shrink in zip(self.down, self.shrink, strict=True):
            small = shrink(x)
            x, outputs = chain(small, cond)
            down.append([small, *outputs])
        x, _ = self.middle(x, cond)
        for chain, grow, kept in zip(self.up, self.grow, reversed(down), strict=True):
            large = grow(x)
            x, outputs = chain(large, cond, kept[::-1])
            up.append([large, *outputs])
        return x[..., :rows, :columns], down, up


def _missing(size: int, whole: int) -> int:
    return math.ceil(size / whole) * whole - size

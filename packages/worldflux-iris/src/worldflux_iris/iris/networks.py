"""The tokenizer's convolutional networks (Esser et al., 2021, as IRIS uses them)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from worldflux_iris.iris.config import ModelConfig


def norm(channels: int, groups: int) -> nn.GroupNorm:
    """Group normalisation as everywhere in these networks."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Twice norm, SiLU, 3x3 convolution; a 1x1 one on the side where channels change."""

    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(channels, groups), nn.Conv2d(channels, out, 3, padding=1)
        self.norm2, self.conv2 = norm(out, groups), nn.Conv2d(out, out, 3, padding=1)
        self.side = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Y, X) -> (N, C', Y, X)."""
        inner = self.conv1(F.silu(self.norm1(x)))
        inner = self.conv2(F.silu(self.norm2(inner)))
        found: Tensor = self.side(x) + inner
        return found


class MapAttention(nn.Module):
    """Self-attention of one head over the places of a feature map."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = norm(channels, groups)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Y, X) -> (N, C, Y, X)."""
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # (N, Y*X, 3C)
        q, k, v = (part[:, None] for part in qkv.chunk(3, -1))
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        found: Tensor = x + self.out(seen.unflatten(2, x.shape[2:]))
        return found


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention where that is wanted."""

    def __init__(self, channels: int, out: int, blocks: int, attends: bool, groups: int) -> None:
        super().__init__()
        sizes = [channels, *[out] * blocks]
        self.blocks = nn.ModuleList(ResidualBlock(a, b, groups) for a, b in pairwise(sizes))
        self.attention = nn.ModuleList(
            MapAttention(out, groups) for _ in range(blocks if attends else 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Y, X) -> (N, C', Y, X)."""
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.attention:
                x = self.attention[i](x)
        return x


class Middle(nn.Module):
    """A residual block, attention, a residual block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.before, self.after = (
            ResidualBlock(channels, channels, groups),
            ResidualBlock(channels, channels, groups),
        )
        self.attention = MapAttention(channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Y, X) -> (N, C, Y, X)."""
        found: Tensor = self.after(self.attention(self.before(x)))
        return found


def halve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 convolution of stride 2 on x (N, C, Y, X), with zeros at the right and the bottom."""
    found: Tensor = conv(F.pad(x, (0, 1, 0, 1)))
    return found


class ImageEncoder(nn.Module):
    """Images (N, C, Y, X) to latents (N, code_dim, Y', X')."""

    def __init__(self, c: ModelConfig, channels: int, side: int) -> None:
        super().__init__()
        self.patch = c.patch
        widths = [c.channels * m for m in c.multipliers]
        self.first = nn.Conv2d(channels * c.patch**2, c.channels, 3, padding=1)
        sides = [side // c.patch // 2**i for i in range(len(widths))]
        inputs = [c.channels, *widths[:-1]]
        self.levels = nn.ModuleList(
            Level(a, b, c.res_blocks, s in c.attention, c.groups)
            for a, b, s in zip(inputs, widths, sides, strict=True)
        )
        self.down = nn.ModuleList(nn.Conv2d(w, w, 3, stride=2) for w in widths[:-1])
        self.middle, self.norm = Middle(widths[-1], c.groups), norm(widths[-1], c.groups)
        self.last = nn.Conv2d(widths[-1], c.latent_channels, 3, padding=1)
        self.project = nn.Conv2d(c.latent_channels, c.code_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Y, X) -> (N, code_dim, Y', X')."""
        x = self.first(F.pixel_unshuffle(x, self.patch))
        for i, level in enumerate(self.levels):
            x = level(x if i == 0 else halve(self.down[i - 1], x))  # type: ignore[arg-type]
        found: Tensor = self.project(self.last(F.silu(self.norm(self.middle(x)))))
        return found


class ImageDecoder(nn.Module):
    """Latents (N, code_dim, Y', X') to images (N, C, Y, X)."""

    def __init__(self, c: ModelConfig, channels: int, side: int) -> None:
        super().__init__()
        self.patch = c.patch
        widths = [c.channels * m for m in reversed(c.multipliers)]
        self.project = nn.Conv2d(c.code_dim, c.latent_channels, 1)
        self.first = nn.Conv2d(c.latent_channels, widths[0], 3, padding=1)
        self.middle = Middle(widths[0], c.groups)
        last = len(widths) - 1
        sides = [side // c.patch // 2 ** (last - i) for i in range(len(widths))]
        inputs = [widths[0], *widths[:-1]]
        self.levels = nn.ModuleList(
            Level(a, b, c.res_blocks + 1, s in c.attention, c.groups)
            for a, b, s in zip(inputs, widths, sides, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in widths[:-1])
        self.norm = norm(widths[-1], c.groups)
        self.last = nn.Conv2d(widths[-1], channels * c.patch**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, code_dim, Y', X') -> (N, C, Y, X)."""
        x = self.middle(self.first(self.project(x)))
        for i, level in enumerate(self.levels):
            x = level(x if i == 0 else self.up[i - 1](F.interpolate(x, scale_factor=2.0)))
        return F.pixel_shuffle(self.last(F.silu(self.norm(x))), self.patch)

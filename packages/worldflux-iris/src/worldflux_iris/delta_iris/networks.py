"""Convolutional encoder and decoder of Delta-IRIS (convnet.py)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from worldflux_iris.delta_iris.config import ConvConfig


class ResidualBlock(nn.Module):
    """Twice norm, SiLU, 3x3 convolution; a 1x1 one on the side where channels change."""

    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, channels), _conv(channels, out)
        self.norm2, self.conv2 = nn.GroupNorm(groups, out), _conv(out, out)
        self.side = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Y, X) -> (N, C', Y, X)."""
        inner = self.conv1(F.silu(self.norm1(x)))
        found: Tensor = self.side(x) + self.conv2(F.silu(self.norm2(inner)))
        return found


class Doubled(nn.Module):
    """Each feature twice in both directions, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Y, X) -> (N, C, 2Y, 2X)."""
        found: Tensor = self.conv(F.interpolate(x, scale_factor=2.0))
        return found


class FrameEncoder(nn.Sequential):
    """Images (N, C, Y, X) to maps (N, latent, Y', X')."""

    def __init__(self, c: ConvConfig, channels: int) -> None:
        widths = [c.channels * m for m in c.multipliers]
        layers: list[nn.Module] = [nn.PixelUnshuffle(c.patch)] if c.patch > 1 else []
        layers.append(_conv(channels * c.patch**2, c.channels))
        before = c.channels
        for width, down in zip(widths, c.down, strict=True):
            layers.append(ResidualBlock(before, width, c.groups))
            if down:
                layers.append(nn.Conv2d(width, width, 2, stride=2))
            before = width
        layers += [nn.GroupNorm(c.groups, before), nn.SiLU(), _conv(before, c.latent)]
        super().__init__(*layers)


class FrameDecoder(nn.Sequential):
    """Maps (N, inputs, Y', X') to images (N, C, Y, X): the levels of an encoder, backwards."""

    def __init__(self, c: ConvConfig, inputs: int, channels: int) -> None:
        widths = [c.channels * m for m in c.multipliers]
        layers: list[nn.Module] = [_conv(inputs, widths[-1])]
        for i in reversed(range(len(widths))):
            if c.down[i]:
                layers.append(Doubled(widths[i]))
            after = widths[i - 1] if i else c.channels
            layers.append(ResidualBlock(widths[i], after, c.groups))
        layers += [nn.GroupNorm(c.groups, c.channels), nn.SiLU()]
        layers.append(_conv(c.channels, channels * c.patch**2))
        if c.patch > 1:
            layers.append(nn.PixelShuffle(c.patch))
        super().__init__(*layers)


def flat(x: Tensor) -> Tensor:
    """Maps (N, C, Y, X) as vectors (N, Y * X * C), channels last."""
    return x.permute(0, 2, 3, 1).flatten(1)


def _conv(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)

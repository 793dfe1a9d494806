"""Layers of DIAMOND's networks: norms by group, self-attention and residual blocks on images.

Images are (B, C, Y, X), conditions (B, D).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUP = 32
"""Channels that are normalised together."""
HEAD = 8
"""Channels of one attention head."""
_EPS = 1e-5


def groups(channels: int) -> int:
    """Groups of a norm over that many channels."""
    return max(1, channels // GROUP)


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size, or divides it by `stride`."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution, as the matrix product that it is: (B, C, Y, X) to (B, C', Y, X)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.matmul(self.weight[:, :, 0, 0], x.flatten(2))  # (B, C', Y X)
        return (flat + self.bias[:, None]).unflatten(2, x.shape[2:])  # type: ignore[index]


class GroupNorm(nn.GroupNorm):
    """Normalises groups of 32 channels, with a scale and a shift for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(groups(channels), channels, eps=_EPS)


class AdaGroupNorm(nn.Module):
    """A norm by group of (B, C, Y, X); scale and shift come from a condition (B, D) alone."""

    def __init__(self, channels: int, cond: int) -> None:
        super().__init__()
        self.linear = nn.Linear(cond, 2 * channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale, shift = self.linear(cond)[:, :, None, None].chunk(2, 1)  # (B, C, 1, 1)
        normed = F.group_norm(x, groups(x.shape[1]), eps=_EPS)
        return torch.addcmul(shift, normed, 1 + scale)


class SelfAttention(nn.Module):
    """Every pixel of (B, C, Y, X) attends to all; the result is added to the normed image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD)
        self.norm = GroupNorm(channels)
        self.qkv = Pointwise(channels, 3 * channels)
        self.out = Pointwise(channels, channels)
        nn.init.zeros_(self.out.weight)
        if self.out.bias is not None:
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        parts = self.qkv(x).flatten(2)  # (B, 3 C, Y X)
        q, k, v = parts.unflatten(1, (3, self.heads, -1)).transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)  # (B, heads, Y X, C / heads)
        return x + self.out(y.transpose(-1, -2).reshape(x.shape))


class Downsample(nn.Module):
    """(B, C, Y, X) at half the size, rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels, stride=2)
        nn.init.orthogonal_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """(B, C, Y, X) at twice the size, from the nearest pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ConditionedBlock(nn.Module):
    """Two convolutions of (B, C, Y, X) under a condition (B, D), a skip, and perhaps attention."""

    def __init__(self, inputs: int, outputs: int, cond: int, attention: bool) -> None:
        super().__init__()
        self.skip = Pointwise(inputs, outputs) if inputs != outputs else nn.Identity()
        self.norm1, self.conv1 = AdaGroupNorm(inputs, cond), conv3x3(inputs, outputs)
        self.norm2, self.conv2 = AdaGroupNorm(outputs, cond), conv3x3(outputs, outputs)
        nn.init.zeros_(self.conv2.weight)
        self.attention = SelfAttention(outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x, cond)))
        y = self.conv2(F.silu(self.norm2(y, cond)))
        found: Tensor = self.attention(y + self.skip(x))
        return found


class BlockChain(nn.ModuleList):
    """Conditioned blocks after one another; a later image may be joined to each one's input."""

    def __init__(
        self, inputs: Sequence[int], outputs: Sequence[int], cond: int, attention: bool
    ) -> None:
        super().__init__(
            ConditionedBlock(i, o, cond, attention) for i, o in zip(inputs, outputs, strict=True)
        )

    def forward(
        self, x: Tensor, cond: Tensor, joined: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The last output (B, C, Y, X), and those of all blocks."""
        outputs = []
        for i, block in enumerate(self):
            x = block(x if joined is None else torch.cat([x, joined[i]], 1), cond)
            outputs.append(x)
        return x, outputs


class PlainBlock(nn.Module):
    """A residual block of one convolution of (B, C, Y, X), without a condition."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm, self.conv = GroupNorm(inputs), conv3x3(inputs, outputs)
        self.skip = Pointwise(inputs, outputs) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.skip(x) + self.conv(F.silu(self.norm(x)))
        return found


class Fourier(nn.Module):
    """Numbers (B,) as cosines and sines (B, D) of fixed random frequencies."""

    weight: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(1, size // 2))

    def forward(self, x: Tensor) -> Tensor:
        turns = 2 * math.pi * x[:, None].float() @ self.weight.float()
        return torch.cat([turns.cos(), turns.sin()], -1).to(x.dtype)


def init_lstm(lstm: nn.Module) -> None:
    """Xavier inputs, orthogonal memory, a forget gate that is open: the weights of an LSTM."""
    for name, parameter in lstm.named_parameters():
        if "weight_ih" in name:
            nn.init.xavier_uniform_(parameter)
        elif "weight_hh" in name:
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)
            if "bias_ih" in name:
                quarter = len(parameter) // 4
                nn.init.ones_(parameter.data[quarter : 2 * quarter])

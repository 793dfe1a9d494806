"""The vision transformer that all families here are made of, under its usual parameter names."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.errors import ConfigError

Rotate = Callable[[Tensor], Tensor]
"""Turns queries or keys (B, heads, N, head size) by the positions of their tokens."""
Past = tuple[Tensor, Tensor]
"""Keys and values (B, heads, N, head size) of tokens that came before."""
EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"width={width} is not a multiple of heads={heads}: set the one or the other."
            )
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(
        self, x: Tensor, rotate: Rotate | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """(B, N, D) -> (B, N, D); `mask` (N, N) is True where a token may look."""
        return self.continued(x, None, rotate, mask)[0]

    def continued(
        self, x: Tensor, past: Past | None, rotate: Rotate | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Past]:  # fmt: skip
        """The output (B, N, D) of tokens that follow those of `past`, and keys and values of all.

        `past` may have fewer rows: each is then shared by as many neighbouring rows.
        """
        rows, count = x.shape[:2]
        qkv = self.qkv(x).view(rows, count, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, D / heads)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        if past is not None:
            share = rows // len(past[0])
            before = [part.repeat_interleave(share, 0) if share > 1 else part for part in past]
            k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).flatten(2)), (k, v)


class MLP(nn.Module):
    """Two layers with the exact GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to its input."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, EPS), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, EPS), MLP(width, int(width * mlp_ratio))

    def forward(
        self, x: Tensor, rotate: Rotate | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.continued(x, None, rotate, mask)[0]

    def continued(
        self, x: Tensor, past: Past | None, rotate: Rotate | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Past]:  # fmt: skip
        """Tokens (B, N, D) that follow those of `past` (see `Attention.continued`)."""
        seen, past = self.attn.continued(self.norm1(x), past, rotate, mask)
        x = x + seen
        return x + self.mlp(self.norm2(x)), past


class PatchEmbed(nn.Module):
    """Images cut into patches, each made a token; what is left over at the edges is not seen."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> tokens (B, N, D), row by row."""
        return self.proj(x).flatten(2).transpose(1, 2)


class ClipEmbed(nn.Module):
    """Clips cut into tubelets of a few frames by a patch, each made a token."""

    def __init__(self, channels: int, tubelet: int, patch: int, width: int) -> None:
        super().__init__()
        size = (tubelet, patch, patch)
        self.proj = nn.Conv3d(channels, width, size, size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, Y, X) -> tokens (B, N, D), frame by frame, row by row."""
        return self.proj(x).flatten(2).transpose(1, 2)


def sincos(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines (N, D) of positions (N,), half of the features each."""
    frequency = torch.arange(width // 2, dtype=torch.float64) / (width / 2)
    angle = positions.double()[:, None] * 10000.0**-frequency  # (N, D / 2)
    return torch.cat([angle.sin(), angle.cos()], 1)


def grid_positions(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column (N,) of each patch, row by row."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return row.flatten(), column.flatten()


def sincos_2d(rows: int, columns: int, width: int) -> Tensor:
    """The fixed position table (N, D) of an image's patches: column first, then row."""
    if width % 4:
        raise ConfigError(
            f"width={width} cannot hold sines and cosines of row and column alike: set a multiple "
            "of 4."
        )
    row, column = grid_positions(rows, columns)
    return torch.cat([sincos(column, width // 2), sincos(row, width // 2)], 1).float()


def sincos_3d(frames: int, rows: int, columns: int, width: int) -> Tensor:
    """The fixed position table (N, D) of a clip's tubelets: a third each for time, row, column."""
    part = 2 * math.ceil(width / 6)
    row, column = grid_positions(rows, columns)
    space = torch.cat([sincos(row, part), sincos(column, part)], 1)  # (N, 2 D / 3)
    time = sincos(torch.arange(frames), part).repeat_interleave(len(row), 0)
    return torch.cat([time, space.repeat(frames, 1)], 1)[:, :width].float()


def fixed(table: Tensor) -> nn.Parameter:
    """A position table (N, D) as a parameter that takes no gradient (1, N, D)."""
    return nn.Parameter(table[None], requires_grad=False)


def gathered(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens (B, K, D) of (B, N, D) that `index` (B, K) names."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def mask_major(index: Tensor) -> Tensor:
    """Masks (B, M, K) of each image as rows (M * B, K): all images of the first, then the next."""
    return index.transpose(0, 1).flatten(0, 1)


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Normal weights cut at two deviations, no biases, as the published runs begin with.

    The rescaling by depth in the published constructors is undone there by a second
    initialisation before training, so that it is left out here.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.trunc_normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)

"""DiT's transformer: noisy images (B, C, Y, X) as tokens (B, N, D), modulated by a condition."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.nn.transformer import Attention
from worldflux_diamond.dit.config import TransformerConfig

_EPS = 1e-6
_WAVES, _PERIOD = 256, 10_000.0


def positions(width: int, rows: int, columns: int, extra: int = 0) -> Tensor:
    """Sines and cosines (rows * columns, D) of places, row by row; `extra` zero rows in front.

    The first half of the features tells the column, the second the row, each sines first.
    """
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64),
        indexing="ij",
    )
    quarter = width // 4
    waves = _PERIOD ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    parts = []
    for place in (x, y):
        turns = place.reshape(-1, 1) * waves
        parts += [turns.sin(), turns.cos()]
    return F.pad(torch.cat(parts, 1), (0, 0, extra, 0)).float()


def time_waves(t: Tensor, size: int = _WAVES) -> Tensor:
    """Numbers t (B,) as cosines, then sines (B, size), in float32; an odd size ends in zero."""
    half = size // 2
    waves = torch.exp(-math.log(_PERIOD) * torch.arange(half, device=t.device).float() / half)
    turns = t[:, None].float() * waves
    return F.pad(torch.cat([turns.cos(), turns.sin()], 1), (0, size % 2))


class TimeEmbedding(nn.Module):
    """Steps (B,), whole or not, to (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(_WAVES, width), nn.Linear(width, width)
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, t: Tensor) -> Tensor:
        found: Tensor = self.second(F.silu(self.first(time_waves(t))))
        return found


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Tokens (B, N, D), normed, with a shift and scale (B, D) for all of a row's."""
    normed = F.layer_norm(x, x.shape[-1:], eps=_EPS)
    return torch.addcmul(shift[:, None], normed, 1 + scale[:, None])


class ZeroBlock(nn.Module):
    """Attention and an MLP, shifted, scaled and gated by a condition (B, D): adaLN-Zero.

    At first the gates are zero, and the block passes its tokens (B, N, D) on.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, inner = config.width, int(config.width * config.expand)
        self.attention = Attention(width, config.heads)
        self.wide, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.modulation = nn.Linear(width, 6 * width)
        _start(self, self.modulation)

    def mlp(self, x: Tensor) -> Tensor:
        """Linear, GELU (tanh), linear on tokens (B, N, D)."""
        narrowed: Tensor = self.narrow(F.gelu(self.wide(x), approximate="tanh"))
        return narrowed

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        parts = self.modulation(F.silu(condition)).chunk(6, -1)
        x = x + parts[2][:, None] * self.attention(modulated(x, parts[0], parts[1]))
        return x + parts[5][:, None] * self.mlp(modulated(x, parts[3], parts[4]))


class FinalLayer(nn.Module):
    """Tokens (B, N, D) to patches (B, N, P), under a condition (B, D); zero at first."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.linear, self.modulation = nn.Linear(width, patch), nn.Linear(width, 2 * width)
        _start(self, self.linear, self.modulation)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(condition)).chunk(2, -1)
        found: Tensor = self.linear(modulated(x, shift, scale))
        return found


class DiTNetwork(nn.Module):
    """Images (B, C, Y, X) under a condition (B, D) to outputs (B, C', Y, X)."""

    positions: Tensor

    def __init__(
        self, config: TransformerConfig, image: tuple[int, ...], inputs: int, outputs: int
    ) -> None:
        super().__init__()
        patch, width = config.patch, config.width
        self.patch, self.outputs = patch, outputs
        self.grid = (image[-2] // patch, image[-1] // patch)
        self.embed = nn.Conv2d(inputs, width, patch, stride=patch)
        self.register_buffer("positions", positions(width, *self.grid), persistent=False)
        self.blocks = nn.ModuleList(ZeroBlock(config) for _ in range(config.depth))
        self.final = FinalLayer(width, patch * patch * outputs)
        nn.init.xavier_uniform_(self.embed.weight.view(width, -1))
        nn.init.zeros_(self.embed.bias)  # type: ignore[arg-type]

    def tokens(self, x: Tensor) -> Tensor:
        """Patches of images (B, C, Y, X) with their places (B, N, D), row by row."""
        return self.embed(x).flatten(2).transpose(1, 2) + self.positions

    def image(self, patches: Tensor) -> Tensor:
        """Patches (B, N, P), each by row, column and channel, as images (B, C', Y, X)."""
        rows, columns = self.grid
        p = self.patch
        whole = patches.reshape(len(patches), rows, columns, p, p, self.outputs)
        return whole.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * p, columns * p)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.image(self.final(tokens, condition))


def _start(module: nn.Module, *zero: nn.Linear) -> None:
    """Xavier weights and no biases in all linear layers, and nothing at all in `zero`."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    for layer in zero:
        nn.init.zeros_(layer.weight)

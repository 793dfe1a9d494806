"""The ST-transformer: attention within each frame, causal attention over time, one FFN."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux_genie.config import TransformerConfig
from worldflux_genie.past import Past

EPS = 1e-6


def sinusoids(count: int, dim: int) -> Tensor:
    """A table (count, D) of sines at even and cosines at odd places, wavelengths to 10000."""
    place = torch.arange(count)[:, None] * torch.exp(
        torch.arange(0, dim, 2) * (-math.log(10000.0) / dim)
    )
    return torch.stack([place.sin(), place.cos()], -1).flatten(1)[:, :dim]


class Attention(nn.Module):
    """Multi-head attention over the second last axis."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.inner = config.heads, config.heads * config.head_size
        self.qkv = nn.Linear(config.dim, 3 * self.inner)
        self.out = nn.Linear(self.inner, config.dim)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (..., heads, N, inner / heads) of x (..., N, D)."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (..., N, 3, heads, d)
        q, k, v = parts.movedim(-3, 0).transpose(-3, -2)
        return q, k, v

    def mixed(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Queries (R, heads, M, d) over keys and values (R, heads, N, d) -> (R, M, D).

        `mask` (R, 1, M, N) says which keys a query sees.
        """
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        mixed: Tensor = self.out(found.transpose(-3, -2).flatten(-2))
        return mixed

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """x (R, N, D) -> (R, N, D)."""
        return self.mixed(*self.split(x), mask, causal)


class Block(nn.Module):
    """x + space(norm(x)), then x + time(norm(x)), then x + ffn(norm(x)): one FFN for both."""

    def __init__(self, config: TransformerConfig, causal_space: bool = False) -> None:
        super().__init__()
        dim, self.causal_space = config.dim, causal_space
        self.space_norm, self.space = nn.LayerNorm(dim, eps=EPS), Attention(config)
        self.time_norm, self.time = nn.LayerNorm(dim, eps=EPS), Attention(config)
        self.ffn_norm = nn.LayerNorm(dim, eps=EPS)
        self.ffn = nn.Sequential(
            nn.Linear(dim, config.ffn), nn.GELU(approximate="tanh"), nn.Linear(config.ffn, dim)
        )

    def spatial(self, x: Tensor) -> Tensor:
        """What attention within each frame adds to x (B, T, N, D)."""
        rows = self.space_norm(x).flatten(0, 1)  # (B * T, N, D)
        return self.space(rows, causal=self.causal_space).unflatten(0, x.shape[:2])

    def temporal(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What attention over the frames up to each one adds to x (B, T, N, D).

        `mask` (B, T, T) replaces the causal one.
        """
        return self._temporal(self.time_norm(x), mask)[0]

    def _temporal(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        rows = x.transpose(1, 2).flatten(0, 1)  # (B * N, T, D)
        q, k, v = self.time.split(rows)
        wide = None if mask is None else mask[:, None].expand(-1, x.shape[2], -1, -1)
        seen = None if wide is None else wide.flatten(0, 1)[:, None]  # (B * N, 1, T, T)
        mixed = self.time.mixed(q, k, v, seen, causal=seen is None)
        return mixed.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2), k, v

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, N, D) -> (B, T, N, D)."""
        return self.with_keys(x, mask)[0]

    def with_keys(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The same, and the keys and values over time (B * N, heads, T, d)."""
        x = x + self.spatial(x)
        mixed, k, v = self._temporal(self.time_norm(x), mask)
        return self._fed(x + mixed), k, v

    def after(self, x: Tensor, past: Past, layer: int) -> Tensor:
        """One more frame x (B, 1, N, D) after those whose keys and values `past` holds."""
        x = x + self.spatial(x)
        rows = self.time_norm(x).transpose(1, 2).flatten(0, 1)  # (B * N, 1, D)
        q, k, v = self.time.split(rows)
        keys, values = past.joined(layer, k, v)
        mixed = self.time.mixed(q, keys, values, past.mask(x.shape[2]))
        return self._fed(x + mixed.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2))

    def _fed(self, x: Tensor) -> Tensor:
        fed: Tensor = x + self.ffn(self.ffn_norm(x))
        return fed


class STTransformer(nn.Module):
    """Tokens (B, T, N, in) -> (B, T, N, out): a layer in, positions, blocks, a layer out."""

    table: Tensor

    def __init__(
        self, config: TransformerConfig, inputs: int, outputs: int, frames: int, tokens: int,
        *, causal_space: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.frames = frames
        self.norm_in, self.layer_in = nn.LayerNorm(inputs, eps=EPS), nn.Linear(inputs, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=EPS)
        self.blocks = nn.ModuleList(Block(config, causal_space) for _ in range(config.blocks))
        self.layer_out = nn.Linear(config.dim, outputs)
        table = sinusoids(max(frames, tokens), config.dim)
        self.register_buffer("table", table, persistent=False)

    def embedded(self, x: Tensor, place: Tensor | None = None) -> Tensor:
        """What the first block sees of x (B, T, N, in); `place` (B, T) are the frames' numbers."""
        x = self.norm(self.layer_in(self.norm_in(x)))
        frames, tokens = x.shape[1:3]
        when = self.table[:frames] if place is None else self.table[place]  # (.., T, D)
        return x + when.unsqueeze(-2).to(x) + self.table[:tokens].to(x)

    def forward(self, x: Tensor, mask: Tensor | None = None, place: Tensor | None = None) -> Tensor:
        """(B, T, N, in) -> (B, T, N, out); `mask` (B, T, T): the frames that each frame sees."""
        x = self.embedded(x, place)
        for block in self._layers():
            x = block(x, mask)
        found: Tensor = self.layer_out(x)
        return found

    def past(self, x: Tensor, length: Tensor) -> Past:
        """What later frames see of the frames x (B, T, N, in), of which `length` (B,) count."""
        keys: list[Tensor] = []
        values: list[Tensor] = []
        if not x.shape[1]:
            return self._nothing(x, length)
        x = self.embedded(x)
        for block in self._layers():
            x, k, v = block.with_keys(x, None)
            keys.append(k)
            values.append(v)
        return Past.of(keys, values, length)

    def _layers(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def _nothing(self, x: Tensor, length: Tensor) -> Past:
        rows, layers = x.shape[0] * x.shape[2], self._layers()
        sizes = [(b.time.heads, b.time.inner // b.time.heads) for b in layers]
        empty = [x.new_zeros(rows, heads, 0, size) for heads, size in sizes]
        return Past.of(empty, list(empty), length)

    def after(self, x: Tensor, past: Past) -> Tensor:
        """One more frame (B, 1, N, in) -> (B, 1, N, out), after those of `past`."""
        x = self.embedded(x, past.length[:, None])
        for layer, block in enumerate(self._layers()):
            x = block.after(x, past, layer)
        found: Tensor = self.layer_out(x)
        return found

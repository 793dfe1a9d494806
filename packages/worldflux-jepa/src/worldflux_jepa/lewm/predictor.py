"""The predictor: a small causal transformer whose blocks are modulated by the actions."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.rand import Rand, bernoulli
from worldflux_jepa.lewm.config import PredictorConfig
from worldflux_jepa.vit import EPS, Past


class Dropout:
    """Drops features by masks that `rand` gives, while training; `None` drops nothing."""

    def __init__(self, rand: Rand | None, rate: float) -> None:
        self.rand, self.rate = rand, rate

    def __call__(self, x: Tensor, name: str, rate: float | None = None) -> Tensor:
        """x (B, ...) with a share of its entries 0, the others larger."""
        rate = self.rate if rate is None else rate
        if self.rand is None or rate == 0:
            return x
        kept = self.rand.draw(name, tuple(x.shape), bernoulli(1 - rate), device=x.device)
        return x * kept / (1 - rate)

    @property
    def active(self) -> bool:
        """Whether attention's weights are dropped."""
        return self.rand is not None and self.rate > 0


class Attention(nn.Module):
    """Causal attention whose heads have a size of their own."""

    def __init__(self, width: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads, inner = heads, heads * head_size
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width) if inner != width or heads != 1 else nn.Identity()

    def forward(
        self, x: Tensor, past: Past | None, mask: Tensor | None, last: bool, drop: Dropout
    ) -> tuple[Tensor, Past]:
        """Tokens (B, N, D) after those of `past` -> (B, N, D), or (B, 1, D) of the `last` alone.

        `mask` (B, N, N) is True where a token may look; None is causal.
        """
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, heads, N, size)
        if past is not None:
            share = len(x) // len(past[0])
            before = [part.repeat_interleave(share, 0) if share > 1 else part for part in past]
            k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
        if last:
            q, mask = q[:, :, -1:], None if mask is None else mask[:, -1:]
        found = self._attended(q, k, v, mask, drop)
        return self.out(found.transpose(1, 2).flatten(2)), (k, v)

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, drop: Dropout
    ) -> Tensor:
        asked, held = q.shape[2], k.shape[2]
        if mask is None:
            causal = torch.ones(asked, held, dtype=torch.bool, device=q.device)
            mask = causal.tril(held - asked)[None]
        if not drop.active:
            return F.scaled_dot_product_attention(q, k, v, mask[:, None])
        weights = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~mask[:, None], -torch.inf)
        return drop(weights.softmax(-1), "weights") @ v


class MLP(nn.Module):
    """Normalised, then two layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, drop: Dropout) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return drop(self.fc2(drop(F.gelu(self.fc1(self.norm(x))), "mlp")), "mlp_out")


class Block(nn.Module):
    """Attention and MLP, shifted, scaled and gated by a condition; the gates begin closed."""

    def __init__(self, width: int, config: PredictorConfig) -> None:
        super().__init__()
        self.attn = Attention(width, config.heads, config.head_size)
        self.mlp = MLP(width, config.mlp)
        self.norm1 = nn.LayerNorm(width, EPS, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, EPS, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Tensor, modulation: Tensor, past: Past | None = None, mask: Tensor | None = None,
        *, last: bool = False, drop: Dropout | None = None,
    ) -> tuple[Tensor, Past]:  # fmt: skip
        """Tokens (B, N, D), each with its modulation (B, N, 6 D): (B, N, D), or of the `last`."""
        drop = drop or Dropout(None, 0.0)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, -1)
        moved = self.norm1(x) * (1 + scale1) + shift1
        seen, past = self.attn(moved, past, mask, last, drop)
        if last:
            x, gate1 = x[:, -1:], gate1[:, -1:]
            shift2, scale2, gate2 = shift2[:, -1:], scale2[:, -1:], gate2[:, -1:]
        x = x + gate1 * drop(seen, "attention")
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2, drop), past


class Predictor(nn.Module):
    """Embeddings and the actions taken at them to the embeddings that follow."""

    def __init__(self, config: PredictorConfig, frames: int, width: int) -> None:
        super().__init__()
        inner = config.width or width
        self.frames, self.config = frames, config
        self.positions = nn.Parameter(torch.randn(1, frames, width))
        differ = inner != width
        self.input = nn.Linear(width, inner) if differ else nn.Identity()
        self.condition = nn.Linear(width, inner) if differ else nn.Identity()
        self.blocks = nn.ModuleList(Block(inner, config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(inner)
        self.output = nn.Linear(inner, width) if differ else nn.Identity()

    def modulations(self, action: Tensor) -> list[Tensor]:
        """What actions (..., D) do to a token, (..., 6 D') for each block."""
        condition = F.silu(self.condition(action))
        return [cast(Block, block).modulation(condition) for block in self.blocks]

    def forward(
        self, rep: Tensor, action: Tensor, place: Tensor | None = None,
        mask: Tensor | None = None, rand: Rand | None = None,
    ) -> Tensor:  # fmt: skip
        """Embeddings (B, N, D) and actions (B, N, D) -> the next embeddings (B, N, D), unprojected.

        `place` (B, N) are positions, 0 to N - 1 unless given; `mask` (B, N, N) says where a token
        may look, to the earlier ones unless given. Dropout is drawn from `rand`, where there is
        one.
        """
        rates = self.config
        drop = Dropout(rand, rates.dropout)
        at = self.positions[:, : rep.shape[1]] if place is None else self.positions[0][place]
        x = self.input(drop(rep + at, "input", rates.input_dropout))
        for i, (block, how) in enumerate(zip(self.blocks, self.modulations(action), strict=True)):
            own = None if rand is None else Dropout(rand.under(f"block{i}/"), rates.dropout)
            x, _ = block(x, how, mask=mask, drop=own)
        return self.output(self.norm(x))

    def step(
        self, rep: Tensor, how: list[Tensor], first: int, past: list[Past] | None
    ) -> tuple[Tensor, list[Past]]:
        """The embedding (B, D) after the last of tokens (B, N, D), and keys and values of all.

        They stand at positions `first` and on, after those of `past`; `how` are their modulations
        (B, N, 6 D') by block. What only earlier tokens would need is not computed.
        """
        x = self.input(rep + self.positions[:, first : first + rep.shape[1]])
        kept: list[Past] = []
        for i, block in enumerate(self.blocks):
            before = None if past is None else past[i]
            x, own = block(x, how[i], before, last=i + 1 == len(self.blocks))
            kept.append(own)
        return self.output(self.norm(x[:, -1])), kept

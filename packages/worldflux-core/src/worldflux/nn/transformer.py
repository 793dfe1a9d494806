"""A pre-norm transformer, with keys and values of earlier tokens kept where wanted."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.nn.cache import KeyValueCache


class Attention(nn.Module):
    """Multi-head self-attention; one matrix for queries, keys and values, in this order."""

    def __init__(self, dim: int, heads: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} is not a multiple of heads={heads}.")
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias)
        self.out = nn.Linear(dim, dim, bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        cache: KeyValueCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Tokens (B, N, dim) -> (B, N, dim).

        `mask` (..., N, held) is True where a token may be seen. With a `cache` earlier tokens are
        seen as well, and these put behind them (see `KeyValueCache.mask`).
        """
        heads = (3, self.heads, x.shape[-1] // self.heads)
        q, k, v = self.qkv(x).unflatten(-1, heads).permute(2, 0, 3, 1, 4)  # each (B, heads, N, D)
        if cache is not None:
            k, v = cache.append(layer, k, v)
            q = q.to(k.dtype)
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal)
        mixed: Tensor = self.out(found.transpose(1, 2).flatten(2).to(x.dtype))
        return mixed


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), of width `expand` times the model's."""

    def __init__(
        self, dim: int, heads: int, *, expand: int = 4, dropout: float = 0.0, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps), nn.LayerNorm(dim, eps)
        self.attention = Attention(dim, heads, dropout=dropout)
        self.wide, self.narrow = nn.Linear(dim, expand * dim), nn.Linear(expand * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def mlp(self, x: Tensor) -> Tensor:
        """Linear, GELU, Linear on tokens (B, N, dim)."""
        narrowed: Tensor = self.narrow(F.gelu(self.wide(x)))
        return narrowed

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        cache: KeyValueCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Tokens (B, N, dim) -> (B, N, dim); see `Attention`."""
        seen = self.attention(self.norm1(x), mask, causal=causal, cache=cache, layer=layer)
        x = x + self.dropout(seen)
        x = x + self.dropout(self.mlp(self.norm2(x)))
        return x


class CausalTransformer(nn.Module):
    """Blocks over at most `window` tokens with learned positions; each sees the earlier ones."""

    def __init__(
        self, layers: int, dim: int, heads: int, window: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.window = dim, heads, window
        self.positions = nn.Embedding(window, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, cache: KeyValueCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Tokens (B, N, dim) -> (B, N, dim); with a `cache`, as the ones after those it holds.

        `mask` (..., N, N) takes the place of the causal one, where there is no cache.
        """
        count = x.shape[1]
        if cache is None:
            x = self.dropout(x + self.positions.weight[:count])
            for block in self.blocks:
                x = block(x, mask, causal=mask is None)
        else:
            cache.room(count)
            x = self.dropout(x + self.positions(cache.places(count)))
            mask = cache.mask(count)
            for layer, block in enumerate(self.blocks):
                x = block(x, mask, cache=cache, layer=layer)
            cache.advance(count)
        normed: Tensor = self.norm(x)
        return normed

    def cache(self, rows: int, like: Tensor) -> KeyValueCache:
        """An empty cache for `rows`, on the device and of the type of `like` (any shape)."""
        head = self.dim // self.heads
        return KeyValueCache.empty(rows, len(self.blocks), self.heads, self.window, head, like)

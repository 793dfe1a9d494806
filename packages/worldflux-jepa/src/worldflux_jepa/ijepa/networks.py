"""The predictor: what is hidden, from what was kept and from where all of it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux_jepa.ijepa.config import PredictorConfig
from worldflux_jepa.vit import EPS, Block, fixed, gathered, initialise, mask_major


class Predictor(nn.Module):
    """A narrow vision transformer over kept tokens and a mask token for each hidden place."""

    def __init__(self, config: PredictorConfig, width: int, heads: int, positions: Tensor) -> None:
        """`width` is that of the encoder's tokens, `positions` (N, config.width) a fixed table."""
        super().__init__()
        self.embed = nn.Linear(width, config.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = fixed(positions)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads or heads) for _ in range(config.depth)
        )
        self.norm, self.proj = nn.LayerNorm(config.width, EPS), nn.Linear(config.width, width)
        initialise(self)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, z: Tensor, keep: Tensor, hidden: Tensor, kind: int = 0) -> Tensor:
        """Guesses (H * C * B, M, D) of H hidden blocks from each of C contexts of B images.

        z (C * B, K, D) are the tokens at keep (B, C, K), hidden is (B, H, M). The first axis of
        the result has blocks first, then contexts, then images. `kind` is that of the masks.
        """
        contexts, blocks = keep.shape[1], hidden.shape[1]
        x = self.embed(z) + self._places(mask_major(keep))
        asked = self.token(kind) + self._places(mask_major(hidden))  # (H * B, M, P)
        asked = asked.unflatten(0, (blocks, -1)).repeat(1, contexts, 1, 1).flatten(0, 1)
        x = torch.cat([x.repeat(blocks, 1, 1), asked], 1)  # (H * C * B, K + M, P)
        for block in self.blocks:
            x = block(x)
        return self.proj(self.norm(x[:, keep.shape[2] :]))

    def token(self, kind: int) -> Tensor:
        """The token (1, 1, P) that stands for what masks of a kind hide; there is one here."""
        return self.mask_token

    def _places(self, index: Tensor) -> Tensor:
        return gathered(self.pos_embed.expand(len(index), -1, -1), index)

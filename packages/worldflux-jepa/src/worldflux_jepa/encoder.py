"""The image encoder: a vision transformer that may see some of the patches alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import ObservationEncoder
from worldflux.core.state import State
from worldflux.errors import CapabilityError
from worldflux.specs import TensorSpec
from worldflux_jepa.pixels import normalised
from worldflux_jepa.vit import (
    EPS,
    Block,
    PatchEmbed,
    fixed,
    gathered,
    initialise,
    sincos_2d,
)
from worldflux_jepa.vit_config import ViTConfig


class ViT(ObservationEncoder):
    """Images to `rep` (B, N, D), a vector for each patch; with a class token `rep` is (B, D)."""

    def __init__(self, config: ViTConfig, key: str, spec: TensorSpec) -> None:
        super().__init__()
        channels, height, width = spec.shape
        self.key, self.patch = key, config.patch_for(height)
        self.grid = height // self.patch, width // self.patch
        least = 1 if config.class_token else 2
        if min(self.grid) < least:
            raise CapabilityError(
                f"An image of {height}x{width} has {self.grid[0]}x{self.grid[1]} patches of "
                f"{self.patch} pixels: at least {least}x{least} are needed. Set its patch."
            )
        size, count = config.width, self.grid[0] * self.grid[1]
        self.patch_embed = PatchEmbed(channels, self.patch, size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size)) if config.class_token else None
        if config.class_token:  # learned positions, as where class tokens are used
            self.pos_embed = nn.Parameter(0.02 * torch.randn(1, count + 1, size))
        else:
            self.pos_embed = fixed(sincos_2d(*self.grid, size))
        self.blocks = nn.ModuleList(
            Block(size, config.heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(size, EPS)
        initialise(self)

    def forward(self, obs: dict[str, Tensor], keep: Tensor | None = None) -> State:
        """Images (B, C, Y, X); `keep` (M * B, K) are the patches that it sees, M masks of B images.

        Returns `rep` (B, N, D), (M * B, K, D) or, with a class token, (B, D). Patches that are
        not kept are dropped before the first block, so that they cost nothing.
        """
        x = self.patch_embed(normalised(obs[self.key]))
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.pos_embed
        if keep is not None:
            x = gathered(x.repeat(len(keep) // len(x), 1, 1), keep)  # (M * B, K, D)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return State({"rep": x if self.cls_token is None else x[:, 0]})

"""Sizes of vision transformers (Dosovitskiy et al. 2010.11929, table 1; DeiT 2012.12877)."""

from __future__ import annotations

from typing import Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from worldflux.config import Config

LARGE_IMAGE = 112


class ViTConfig(Config):
    """A vision transformer."""

    width: PositiveInt = 192
    """D, features of a token."""
    depth: PositiveInt = 12
    """Number of blocks."""
    heads: PositiveInt = 3
    """Attention heads of a block; they divide the width."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden units of a block's MLP over the width."""
    patch: PositiveInt | None = None
    """Pixels along a patch's edge; None: 16, or an eighth of images of less than 112 pixels."""
    grid: PositiveInt | None = None
    """Patches along an image's edge, where `patch` is None; it takes the place of that rule."""
    class_token: bool = False
    """Whether one more token stands for the whole image, which is then all that is given."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")
        return self

    def patch_for(self, height: int) -> int:
        """Pixels along a patch's edge for images of this height."""
        if self.patch is None and self.grid is None:
            return 16 if height >= LARGE_IMAGE else max(1, height // 8)
        return self.patch or max(1, height // (self.grid or 1))


VIT = {
    "mini": ViTConfig(width=96, depth=4, heads=3),
    "tiny": ViTConfig(width=192, depth=12, heads=3),
    "small": ViTConfig(width=384, depth=12, heads=6),
    "base": ViTConfig(width=768, depth=12, heads=12),
    "large": ViTConfig(width=1024, depth=24, heads=16),
    "huge": ViTConfig(width=1280, depth=32, heads=16),
    "giant": ViTConfig(width=1408, depth=40, heads=16, mlp_ratio=48 / 11),
}
"""By their usual names; "mini" is ours, for a CPU."""

"""Learn latents without a decoder, by reducing redundancy (R2-Dreamer, ICLR 2026)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.output import ModelOutput
from worldflux.specs import TensorSpec
from worldflux_dreamer.dreamerv3.config import ModelConfig
from worldflux_dreamer.dreamerv3.representation.base import Representation
from worldflux_dreamer.dreamerv3.representation.projection import projection


class RedundancyReduction(Representation):
    """One term: projected features against embeddings, which take no gradient from it."""

    spans_batch = True

    def __init__(
        self, config: ModelConfig, obs_spec: Mapping[str, TensorSpec], feat: int, embed: int
    ) -> None:
        super().__init__()
        self.scale, self.off_diagonal = config.scale_r2, config.r2_off_diagonal
        self.projector = projection(feat, embed)

    def scales(self) -> dict[str, float]:
        """Weight of every term by its name."""
        return {"r2": self.scale}

    def forward(
        self, feat: Tensor, embed: Tensor, output: ModelOutput, data: Batch
    ) -> dict[str, Tensor]:
        """The batch's loss at every step (B, T)."""
        left, right = self.projector(feat).flatten(0, 1), embed.detach().flatten(0, 1)
        loss = barlow_loss(left, right, self.off_diagonal)
        return {"r2": loss.expand(data.is_first.shape)}


def barlow_loss(left: Tensor, right: Tensor, off_diagonal: float) -> Tensor:
    """Distance (scalar) of the cross-correlation of (N, E) and (N, E) to identity (2103.03230)."""
    sides = [(x - x.mean(0)) / (x.std(0) + 1e-8) for x in (left.float(), right.float())]
    with torch.autocast(left.device.type, enabled=False):
        cross = sides[0].T @ sides[1] / left.shape[0]
    diagonal = torch.diagonal(cross)
    redundant = cross.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + off_diagonal * redundant

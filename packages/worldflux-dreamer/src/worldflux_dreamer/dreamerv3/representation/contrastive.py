"""Learn latents without a decoder, by telling their own observation from the batch's others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.batch import Batch
from worldflux.core.output import ModelOutput
from worldflux.specs import TensorSpec
from worldflux_dreamer.dreamerv3.config import ModelConfig
from worldflux_dreamer.dreamerv3.representation.base import Representation
from worldflux_dreamer.dreamerv3.representation.projection import projection


class Contrast(Representation):
    """One term, InfoNCE (1807.03748); embeddings take no gradient from it."""

    spans_batch = True

    def __init__(
        self, config: ModelConfig, obs_spec: Mapping[str, TensorSpec], feat: int, embed: int
    ) -> None:
        super().__init__()
        self.scale = config.scale_contrastive
        self.projector = projection(feat, embed)

    def scales(self) -> dict[str, float]:
        """Weight of every term by its name."""
        return {"contrastive": self.scale}

    def forward(
        self, feat: Tensor, embed: Tensor, output: ModelOutput, data: Batch
    ) -> dict[str, Tensor]:
        """Losses (B, T): each step against all B * T of the batch."""
        left, right = self.projector(feat).flatten(0, 1), embed.detach().flatten(0, 1)
        return {"contrastive": info_nce(left, right).view(data.is_first.shape)}


def info_nce(left: Tensor, right: Tensor) -> Tensor:
    """Cross entropy (N,) in float32 of finding each row's partner by inner product, both (N, E)."""
    own = torch.arange(len(left), device=left.device)
    with torch.autocast(left.device.type, enabled=False):
        scores = left.float() @ right.float().T
    return F.cross_entropy(scores, own, reduction="none")

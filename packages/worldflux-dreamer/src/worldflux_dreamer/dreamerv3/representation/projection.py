"""The map from latent features to the space of embeddings."""

from __future__ import annotations

from torch import nn

from worldflux.nn.init import trunc_normal_in_


def projection(feat: int, embed: int) -> nn.Linear:
    """A linear map without bias, initialised as the rest of DreamerV3 is."""
    layer = nn.Linear(feat, embed, bias=False)
    trunc_normal_in_(layer.weight, feat)
    return layer

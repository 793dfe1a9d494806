"""The choices for reading and drawing images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from worldflux.errors import ContractError
from worldflux_dreamer.latent_rssm.config import SizesConfig
from worldflux_dreamer.latent_rssm.layers import dense, glorot, mlp
from worldflux_dreamer.latent_rssm.networks import Encoder, LatentDecoder
from worldflux_dreamer.modular.config import ModelConfig

Shape = tuple[int, int, int]


class ModularEncoder(Encoder):
    """Images by the network that `encoder` names."""

    def image_network(self, config: SizesConfig, shape: Shape) -> nn.Module:
        assert isinstance(config, ModelConfig)
        if config.encoder == "mlp":
            return FlatEncoder(shape, config)
        if config.encoder == "vit":
            return VisionTransformer(shape, config)
        return super().image_network(config, shape)


class ModularDecoder(LatentDecoder):
    """Images by the network that `decoder` names."""

    def image_network(self, config: SizesConfig, size_in: int, shape: Shape) -> nn.Module:
        assert isinstance(config, ModelConfig)
        if config.decoder == "conv":
            return super().image_network(config, size_in, shape)
        hidden = mlp(size_in, config.units, config.vector_layers, config.activation)
        out = dense(config.units, math.prod(shape))
        return nn.Sequential(*hidden, out, nn.Unflatten(-1, shape))


class FlatEncoder(nn.Sequential):
    """An MLP on all pixels; (N, C, Y, X) -> (N, units)."""

    def __init__(self, shape: Shape, config: ModelConfig) -> None:
        size = math.prod(shape)
        hidden = mlp(size, config.units, config.vector_layers, config.activation)
        super().__init__(nn.Flatten(), *hidden)
        self.size = config.units


class VisionTransformer(nn.Module):
    """Patches as tokens with learned positions (2010.11929), averaged; -> (N, E)."""

    def __init__(self, shape: Shape, config: ModelConfig) -> None:
        super().__init__()
        if any(side % config.patch for side in shape[1:]):
            raise ContractError(
                f"An image of shape {tuple(shape)} has no whole number of patches of "
                f"{config.patch} pixels: resize it or set patch."
            )
        width, self.size = config.vit_units, config.embed
        count = (shape[1] // config.patch) * (shape[2] // config.patch)
        self.patches = nn.Conv2d(shape[0], width, config.patch, config.patch)
        glorot(self.patches)
        self.positions = nn.Parameter(0.02 * torch.randn(count, width))
        layer = nn.TransformerEncoderLayer(
            width, config.vit_heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, config.vit_layers, enable_nested_tensor=False)
        self.norm, self.out = nn.LayerNorm(width), dense(width, config.embed)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patches(image).flatten(2).mT + self.positions  # (N, tokens, width)
        embed: Tensor = self.out(self.norm(self.blocks(tokens)).mean(1))
        return embed

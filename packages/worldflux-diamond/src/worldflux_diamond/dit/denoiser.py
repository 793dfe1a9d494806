"""DiT as the denoiser of frames: a part for DIAMOND's slot `dynamics_model`.

`--set 'slots.dynamics_model={class: worldflux_diamond.dit.denoiser:DiTFrames, patch: 4}'`
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from worldflux.errors import ContractError
from worldflux_diamond.diamond.dynamics import DiamondDynamics
from worldflux_diamond.diamond.world_model import DiamondWorldModel
from worldflux_diamond.dit.config import TransformerConfig
from worldflux_diamond.dit.network import DiTNetwork, TimeEmbedding

_WAVES_PER_NOISE = 250.0
"""EDM's noise level is -1.6 to 0.8; a step of diffusion, which the waves are for, 0 to 999."""


class FrameTransformer(nn.Module):
    """The next frame, out of a noisy one and its history joined on channels."""

    def __init__(
        self, config: TransformerConfig, image: tuple[int, ...], history: int, action: int
    ) -> None:
        super().__init__()
        channels, *sides = image
        if any(side % config.patch for side in sides):
            raise ContractError(
                f"Frames of {sides[0]}x{sides[1]} cannot be cut into patches of {config.patch}: "
                "give slots.dynamics_model a patch that divides both sides."
            )
        self.network = DiTNetwork(config, image, (history + 1) * channels, channels)
        self.noise = TimeEmbedding(config.width)
        self.action = nn.Linear(history * action, config.width, bias=False)

    def forward(self, noisy: Tensor, c_noise: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        """Noisy (B, C, Y, X), noise (B,), frames (B, K, C, Y, X), actions (B, K, A)."""
        condition = self.noise(_WAVES_PER_NOISE * c_noise) + self.action(actions.flatten(1))
        found: Tensor = self.network(torch.cat([frames.flatten(1, 2), noisy], 1), condition)
        return found


class DiTFrames(DiamondDynamics):
    """DIAMOND's dynamics with a transformer as denoiser; options are those of the transformer."""

    def __init__(self, model: DiamondWorldModel, **options: Any) -> None:
        self.transformer = TransformerConfig(**options)
        super().__init__(model)

    def network(self, model: DiamondWorldModel) -> nn.Module:
        return FrameTransformer(self.transformer, self.image, self.history, self.action_size)

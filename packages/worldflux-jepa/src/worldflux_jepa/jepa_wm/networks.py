"""What goes into the predictor: image tokens with the body's state, and blocks of actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import ActionConditioner, ObservationEncoder
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.specs import TensorSpec
from worldflux_jepa.encoder import ViT
from worldflux_jepa.jepa_wm.config import ConvConfig
from worldflux_jepa.projected import Convolutions, Projected
from worldflux_jepa.vit_config import ViTConfig


class ImageTokens(ObservationEncoder):
    """Images to tokens `rep` (B, N, D), and a body's state `proprio` (B, S) where it has a key."""

    def __init__(
        self, config: ViTConfig | ConvConfig, key: str, spec: TensorSpec, proprio: str | None
    ) -> None:
        super().__init__()
        self.vit: nn.Module = (
            ConvTokens(config, key, spec)
            if isinstance(config, ConvConfig)
            else ViT(config, key, spec)
        )
        self.proprio = proprio

    def forward(self, obs: dict[str, Tensor]) -> State:
        """Observations (B, ...) by key."""
        found: State = self.vit(obs)
        if self.proprio is None:
            return found
        return found.with_({"proprio": obs[self.proprio].float().flatten(1)})


class ConvTokens(nn.Module):
    """Images to tokens `rep` (B, N, D), each projected from convolutions of the whole image."""

    def __init__(self, config: ConvConfig, key: str, spec: TensorSpec) -> None:
        super().__init__()
        self.tokens, trunk = config.tokens, Convolutions(config.channels, key, spec)
        self.net = Projected(trunk, trunk.size, config.hidden, config.tokens * config.width)

    def forward(self, obs: dict[str, Tensor]) -> State:
        """Images (B, C, Y, X) by key."""
        flat: Tensor = self.net(obs)["rep"]  # (B, N * D)
        return State({"rep": flat.unflatten(1, (self.tokens, -1))})


class FlatBlocks(ActionConditioner):
    """Blocks of k actions (B, k, A), normalised by the data's statistics, as vectors (B, k * A)."""

    mean: Tensor
    std: Tensor

    def __init__(self, action: TensorSpec, stride: int) -> None:
        """`action` is the space of one action."""
        super().__init__()
        self.stride, self.size = stride, action.size
        self.register_buffer("mean", torch.zeros(action.size))
        self.register_buffer("std", torch.ones(action.size))

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        """Blocks (B, k, A), or raw actions (B, A) where k is 1, -> (B, k * A)."""
        assert action is not None, "JEPA world models need actions"
        block = action.reshape(len(action), self.stride, self.size).float()
        return ((block - self.mean) / self.std).flatten(1)

    def total(self, conditioned: Tensor) -> Tensor:
        """The sum (..., A) of a block's raw actions, of conditioned ones (..., k * A)."""
        block = conditioned.unflatten(-1, (self.stride, self.size))
        return (block * self.std + self.mean).sum(-2)

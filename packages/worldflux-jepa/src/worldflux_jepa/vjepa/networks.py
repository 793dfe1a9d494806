"""V-JEPA's encoder of clips, and its predictor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import ObservationEncoder
from worldflux.core.state import State
from worldflux.errors import CapabilityError
from worldflux.specs import TensorSpec
from worldflux_jepa.ijepa.config import PredictorConfig
from worldflux_jepa.ijepa.networks import Predictor
from worldflux_jepa.pixels import normalised
from worldflux_jepa.vit import EPS, Block, ClipEmbed, fixed, gathered, initialise, sincos_3d
from worldflux_jepa.vjepa.config import ModelConfig


class ClipViT(ObservationEncoder):
    """Clips to `rep` (B, N, D), a vector for each tubelet. A single frame is a still clip."""

    def __init__(self, config: ModelConfig, key: str, spec: TensorSpec) -> None:
        super().__init__()
        channels, height, width = spec.shape
        vit, self.key, self.frames = config.encoder, key, config.frames
        patch = vit.patch_for(height)
        self.grid = config.frames // config.tubelet, height // patch, width // patch
        if min(self.grid[1:]) < 2 or self.grid[0] < 1:
            raise CapabilityError(
                f"Clips of {config.frames} frames of {height}x{width} have a grid of "
                f"{'x'.join(map(str, self.grid))} tubelets ({config.tubelet} frames of {patch} "
                "pixels): at least 1x2x2 are needed. Set model.encoder.patch or model.frames."
            )
        self.patch_embed = ClipEmbed(channels, config.tubelet, patch, vit.width)
        self.pos_embed = fixed(sincos_3d(*self.grid, vit.width))
        self.blocks = nn.ModuleList(
            Block(vit.width, vit.heads, vit.mlp_ratio) for _ in range(vit.depth)
        )
        self.norm = nn.LayerNorm(vit.width, EPS)
        initialise(self)

    def forward(self, obs: dict[str, Tensor], keep: Tensor | None = None) -> State:
        """Clips (B, T, C, Y, X), or frames (B, C, Y, X); `keep` (B, K) are tubelets to see."""
        clip = obs[self.key]
        if clip.ndim == 4:
            clip = clip[:, None].expand(-1, self.frames, -1, -1, -1)
        x = self.patch_embed(normalised(clip).transpose(1, 2)) + self.pos_embed
        if keep is not None:
            x = gathered(x, keep)
        for block in self.blocks:
            x = block(x)
        return State({"rep": self.norm(x)})


class ClipPredictor(Predictor):
    """I-JEPA's predictor with a mask token for each kind of masks."""

    def __init__(
        self, config: PredictorConfig, width: int, heads: int, positions: Tensor, kinds: int
    ) -> None:
        super().__init__(config, width, heads, positions)
        del self.mask_token
        self.mask_tokens = nn.Parameter(torch.zeros(kinds, 1, 1, config.width))

    def token(self, kind: int) -> Tensor:
        """The mask token (1, 1, P) of a kind of masks."""
        return self.mask_tokens[kind]

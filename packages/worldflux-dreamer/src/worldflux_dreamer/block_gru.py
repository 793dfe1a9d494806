"""DreamerV3's recurrent core, a block-diagonal GRU; other recurrent models can choose it too."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from worldflux.errors import ConfigError
from worldflux.nn.norms import RMSNormSiLU
from worldflux_dreamer.layers import BlockLinear, Dense
from worldflux_dreamer.unroll import Steps


class BlockGRU(nn.Module):
    """h' = core(h, z, a): three projections, a block-diagonal layer, gates (rssm.py:_core)."""

    def __init__(
        self,
        deter: int,
        hidden: int,
        latent: int,
        action: int,
        blocks: int = 8,
        layers: int = 1,
        eps: float = 1e-4,
    ) -> None:
        super().__init__()
        if deter % blocks:
            raise ConfigError(f"deter={deter} is not a multiple of blocks={blocks}")
        self.blocks = blocks
        self.from_deter = Dense(deter, hidden, eps)
        self.from_stoch = Dense(latent, hidden, eps)
        self.from_action = Dense(action, hidden, eps)
        widths = [deter + 3 * hidden * blocks, *[deter] * layers]
        self.hidden = nn.ModuleList(BlockLinear(a, b, blocks) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(RMSNormSiLU(deter, eps) for _ in self.hidden)
        self.gates = BlockLinear(widths[-1], 3 * deter, blocks)

    def layers(self) -> list[tuple[BlockLinear, RMSNormSiLU]]:
        """The block layers before the gates, each with its norm."""
        return list(zip(self.hidden, self.norms, strict=True))  # type: ignore[arg-type]

    def action_input(self, action: Tensor) -> Tensor:
        """What an action (..., A) contributes (..., hidden); does not depend on the state."""
        action = action / action.detach().abs().clamp(min=1)
        hidden: Tensor = self.from_action(action)
        return hidden

    def forward(self, deter: Tensor, stoch: Tensor, action: Tensor, steps: Steps) -> Tensor:
        # deter (B, D), stoch (B, S * K), action (B, hidden) -> (B, D)
        g = self.blocks
        parts = [self.from_deter.step(deter, steps), self.from_stoch.step(stoch, steps), action]
        shared = torch.cat(parts, -1).expand(g, -1, -1)  # (G, B, 3 hidden)
        own = deter.unflatten(-1, (g, -1)).transpose(0, 1)  # (G, B, D/G)
        x = torch.cat([own.to(shared.dtype), shared], -1)
        for layer, norm in self.layers():
            x = norm.grouped(steps(layer, x))
        new = gru_update(steps(self.gates, x), own)
        return new.transpose(0, 1).flatten(1)


def gru_update(gates: Tensor, deter: Tensor) -> Tensor:
    """Gates (G, B, 3 D/G), in each block reset, candidate, update; deter and result (G, B, D/G)."""
    reset, cand, update = gates.float().chunk(3, -1)
    cand = (torch.sigmoid(reset) * cand).tanh_()
    return torch.lerp(deter.float(), cand, (update - 1).sigmoid_())

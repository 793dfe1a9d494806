"""The predictor: a transformer over [action, state, patches] of frames, causal from frame to frame.

A frame's tokens see one another and all earlier frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux_jepa.jepa_wm.config import PredictorConfig
from worldflux_jepa.rope import Turn, places
from worldflux_jepa.vit import EPS, Block, Past, Rotate, initialise


class ModulatedBlock(Block):
    """A block that a condition shifts, scales and gates; the gates begin closed."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__(width, heads, mlp_ratio)
        self.norm1 = nn.LayerNorm(width, EPS, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, EPS, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)

    def modulated(
        self, x: Tensor, condition: Tensor, past: Past | None, rotate: Rotate, mask: Tensor | None
    ) -> tuple[Tensor, Past]:
        """Tokens (B, T * N, D), N of a frame with condition (B, T, D), after those of `past`."""
        frames = condition.shape[1]
        parts = self.modulation(F.silu(condition))[:, :, None].chunk(6, -1)  # each (B, T, 1, D)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts

        def framed(tokens: Tensor) -> Tensor:
            return tokens.unflatten(1, (frames, -1))  # (B, T, N, D)

        moved = framed(self.norm1(x)) * (1 + scale1) + shift1
        seen, past = self.attn.continued(moved.flatten(1, 2), past, rotate, mask)
        x = x + (gate1 * framed(seen)).flatten(1, 2)
        moved = framed(self.norm2(x)) * (1 + scale2) + shift2
        return x + (gate2 * self.mlp(moved)).flatten(1, 2), past


class Predictor(nn.Module):
    """Tokens of frames, and the actions and states there, to the tokens of the next frames."""

    def __init__(
        self, config: PredictorConfig, tokens: int, action: int, proprio: int | None,
        predicts_state: bool = False,
    ) -> None:  # fmt: skip
        """`tokens`, `action` and `proprio` are numbers of features; None: there is no state."""
        super().__init__()
        self.config, width = config, config.width
        self.modulates = config.conditioning == "adaln"
        self.embed = nn.Linear(tokens, width)
        self.action = nn.Linear(action, width)
        self.state = None if proprio is None else nn.Linear(proprio, width)
        self.extrinsics = nn.Linear(config.extrinsics, width) if config.extrinsics else None
        kind = ModulatedBlock if self.modulates else Block
        self.blocks = nn.ModuleList(
            kind(width, config.heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm, self.proj = nn.LayerNorm(width, EPS), nn.Linear(width, tokens)
        told = proprio if predicts_state else None
        self.next_state = None if told is None else nn.Linear(width, told)
        initialise(self)
        if self.extrinsics is not None and not config.use_extrinsics:
            self.extrinsics.requires_grad_(False)  # published weights that nothing uses
        for block in self.blocks:
            if isinstance(block, ModulatedBlock):
                nn.init.zeros_(block.modulation.weight)

    @property
    def extra(self) -> int:
        """Tokens of a frame besides its patches."""
        return (not self.modulates) + (self.state is not None) + self.config.use_extrinsics

    def forward(
        self, x: Tensor, action: Tensor, proprio: Tensor | None, grid: tuple[int, int],
        *, extrinsics: Tensor | None = None, mask: Tensor | None = None, first: int = 0,
        past: Sequence[Past] | None = None,
    ) -> tuple[Tensor, Tensor | None, list[Past]]:  # fmt: skip
        """Frames x (B, T, N, D) with action (B, T, A'), proprio and extrinsics (B, T, ...).

        Returns the next frames (B, T, N, D), what the state's tokens say of the next state
        (B, T, S), and keys and values. `mask` (B, T, T) is True where a frame may look, at all
        earlier ones unless given; the frames stand at `first` and on, after those of `past`.
        """
        frames, count = x.shape[1:3]
        told, condition = self._told(action, proprio, extrinsics)
        x = torch.cat([*told, self.embed(x)], 2).flatten(1, 2)  # (B, T * (extra + N), P)
        per = self.extra + count
        at = places(frames, grid, self.extra, first, self.config.rope_size, x.device)
        turn = Turn(at)
        looks = self._looks(mask, frames, per, past, x.device)
        kept: list[Past] = []
        for i, block in enumerate(self.blocks):
            before = None if past is None else past[i]
            if isinstance(block, ModulatedBlock):
                assert condition is not None
                x, own = block.modulated(x, condition, before, turn, looks)
            else:
                x, own = cast(Block, block).continued(x, before, turn, looks)
            kept.append(own)
        x = self.norm(x).unflatten(1, (frames, per))
        state = self.next_state(x[:, :, self._state_at]) if self.next_state is not None else None
        return self.proj(x[:, :, self.extra :]), state, kept

    @property
    def _state_at(self) -> int:
        return 0 if self.modulates else 1

    def _told(
        self, action: Tensor, proprio: Tensor | None, extrinsics: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Tokens (B, T, 1, P) before a frame's patches, and the condition (B, T, P) of blocks."""
        done = self.action(action)
        tokens = [] if self.modulates else [done[:, :, None]]
        if self.state is not None:
            assert proprio is not None, "the predictor has states: give proprio"
            tokens.append(self.state(proprio)[:, :, None])
        if self.config.use_extrinsics:
            assert self.extrinsics is not None and extrinsics is not None, "give extrinsics"
            tokens.append(self.extrinsics(extrinsics)[:, :, None])
        return tokens, done if self.modulates else None

    def _looks(
        self, mask: Tensor | None, frames: int, per: int, past: Sequence[Past] | None,
        device: torch.device,
    ) -> Tensor | None:  # fmt: skip
        """The mask of tokens that of frames stands for; None where all may see all."""
        if mask is None:
            if frames == 1:
                return None
            assert past is None, "several frames after others need a mask"
            mask = torch.ones(frames, frames, dtype=torch.bool, device=device).tril()[None]
        wide = mask.repeat_interleave(per, 1).repeat_interleave(per, 2)
        return wide[:, None]

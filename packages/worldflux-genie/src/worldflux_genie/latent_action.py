"""The latent action model: which of a few actions led from a frame to the next, from pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import ActionConditioner
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.errors import ContractError
from worldflux.nn.vector_quantizer import Quantized
from worldflux_genie import history
from worldflux_genie.config import ModelConfig
from worldflux_genie.patches import grid, patchify, pixels, unpatchify
from worldflux_genie.quantize import Quantizer, quantizer
from worldflux_genie.transformer import STTransformer


class Explained(NamedTuple):
    """The actions between frames, (B, T-1, L) and their numbers (B, T-1), and the next frames
    (B, T-1, C, Y, X) as the decoder has them from the frames before and the actions."""

    actions: Quantized
    frames: Tensor


class LatentActionModel(ActionConditioner):
    """The encoder sees a frame and the next, the decoder only the first and the action.

    After training the code-book alone is used: a choice of action to its code.
    """

    def __init__(self, config: ModelConfig, image: tuple[int, ...]) -> None:
        super().__init__()
        c = config.latent_action
        self.image, self.patch, self.residual = image, c.patch, c.residual
        rows, columns = grid(image, c.patch)
        patch, tokens = c.patch**2 * image[0], rows * columns
        width, dim = c.quantizer.width, c.decoder.dim
        self.quantizer: Quantizer = quantizer(c.quantizer)
        self.token = nn.Parameter(torch.randn(patch) * 0.02)
        self.encoder = STTransformer(c.encoder, patch, width, config.frames, tokens + 1)
        self.patch_up, self.action_up = nn.Linear(patch, dim), nn.Linear(width, dim)
        self.decoder = STTransformer(c.decoder, dim, patch, config.frames, tokens)
        if self.residual:  # begins as "nothing changes", and not as noise on top of the frame
            nn.init.zeros_(self.decoder.layer_out.weight)
            nn.init.zeros_(self.decoder.layer_out.bias)
        self.map = config.action_map

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        """Choices (...), one-hot (..., A) or codes (..., L) -> codes (..., L).

        Where there is an `action_map` choices are an environment's actions, else latent ones.
        """
        if action is None:
            raise ContractError("A latent action is needed, got None: give one, or its number.")
        width, count = self.quantizer.config.width, len(self.map) or self.quantizer.codes
        if action.is_floating_point():
            if action.shape[-1:] == (width,):
                return action
            if action.shape[-1:] != (count,):
                raise ContractError(
                    f"A floating action has shape {tuple(action.shape)}: expected {count} at the "
                    f"end (one-hot) or {width} (a code)."
                )
            action = action.argmax(-1)
        if self.map:
            action = torch.tensor(self.map, device=action.device)[action.long()]
        return self.codes(action)

    def codes(self, index: Tensor) -> Tensor:
        """The codes (..., L) of latent actions by number (...)."""
        return self.quantizer.rows(index.long())

    def features(self, video: Tensor, is_first: Tensor | None = None) -> Tensor:
        """Videos (B, T, C, Y, X) -> (B, T-1, L): what happened before each frame but the first."""
        patches = patchify(pixels(video), self.patch)  # (B, T, N, P)
        token = self.token.to(patches).expand(*patches.shape[:2], 1, -1)
        place, mask = (None, None) if is_first is None else history.places(is_first)
        found: Tensor = self.encoder(torch.cat([token, patches], 2), mask, place)
        return found[:, 1:, 0]

    def predicted(self, before: Tensor, action: Tensor, is_first: Tensor | None = None) -> Tensor:
        """Frames (B, T, C, Y, X) and the codes (B, T, L) chosen there -> the next frames.

        The decoder sees no frame after the action: it must be told what happened.
        """
        frames = pixels(before)
        x = self.patch_up(patchify(frames, self.patch))  # (B, T, N, D)
        x = x + self.action_up(action)[:, :, None]
        place, mask = (None, None) if is_first is None else history.places(is_first)
        patches = self.decoder(x, mask, place).float()
        if self.residual:
            change = unpatchify(patches.tanh(), self.patch, self.image)
            return frames + change
        return unpatchify(patches.sigmoid(), self.patch, self.image)

    def explained(
        self, video: Tensor, is_first: Tensor | None = None, rand: Rand | None = None
    ) -> Explained:
        """The actions in videos (B, T, C, Y, X), and what the decoder makes of them."""
        actions = self.quantizer.chosen(self.features(video, is_first), rand)
        first = None if is_first is None else is_first[:, :-1]
        return Explained(actions, self.predicted(video[:, :-1], actions.output, first))

    @torch.no_grad()
    def inferred(self, video: Tensor, is_first: Tensor | None = None) -> Tensor:
        """The numbers (B, T-1) of the actions in videos (B, T, C, Y, X)."""
        index: Tensor = self.quantizer(self.features(video, is_first)).index
        return index

"""The tokenizer of changes: what a frame and an action do not tell of the next frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldflux.core.rand import Rand
from worldflux.errors import CapabilityError
from worldflux.nn.pixels import Pixels
from worldflux.nn.vector_quantizer import MovingQuantizer, Quantized
from worldflux.specs import TensorSpec
from worldflux_iris.delta_iris.config import ModelConfig
from worldflux_iris.delta_iris.networks import FrameDecoder, FrameEncoder
from worldflux_iris.heads import initialised

COMMITMENT, L1, WORST = 0.02, 0.1, 0.01
"""Weights of the losses beside the squared error (tokenizer.py, quantizer.py)."""


@dataclass(frozen=True)
class Change:
    """A change (N, ...) between two frames as the tokenizer sees it."""

    latents: Tensor
    """What becomes tokens (N, K, features), in patches of the encoder's map."""
    found: Quantized
    """How their projections were quantised."""
    restored: Tensor
    """What the decoder gets in their place (N, K, features)."""


class DeltaTokenizer(nn.Module):
    """Two frames and the action between them to K tokens; one frame, action, tokens to the next."""

    def __init__(self, c: ModelConfig, image: TensorSpec, choices: int) -> None:
        super().__init__()
        channels, side, other = image.shape
        grid = round(c.tokens**0.5)
        self.side, self.grid, self.size = side // c.encoder.downscale, grid, side
        if side != other or side % c.encoder.downscale or self.side % grid:
            raise CapabilityError(
                f"Delta-IRIS needs square images whose side is a multiple of "
                f"{c.encoder.downscale * grid} (halvings, and {grid} tokens a side), got "
                f"{image.shape}. Set env.size."
            )
        if side % c.context.downscale:
            raise CapabilityError(
                f"model.context makes features of {c.context.downscale} pixels a side, which do "
                f"not divide images of {side}. Set env.size, or model.context.patch and down."
            )
        self.patch = self.side // grid
        features = c.encoder.latent * self.patch**2
        self.encoder_action = nn.Embedding(choices, side * side)
        self.decoder_action = nn.Embedding(choices, c.action_channels * self.side**2)
        self.encoder = FrameEncoder(c.encoder, 2 * channels + 1)
        self.frame = FrameEncoder(c.frame, channels)
        inputs = c.frame.latent + c.action_channels + c.encoder.latent
        self.decoder = FrameDecoder(c.decoder, inputs, channels)
        self.project, self.restore = (
            nn.Linear(features, c.code_dim),
            nn.Linear(c.code_dim, features),
        )
        self.pixels = Pixels(image.shape, c.whiten, mean=0.0, scale=1.0)
        self.quantizer = MovingQuantizer(c.vocab, c.code_dim)
        self.revive_updates = c.revive_updates
        self.apply(initialised)

    def encode(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Maps (N, latent, Y', X') of frames (N, C, Y, X) in [0, 1] and actions (N, A)."""
        plane = (action @ self.encoder_action.weight).unflatten(1, (1, self.size, self.size))
        found: Tensor = self.encoder(torch.cat([self.pixels(before), plane, self.pixels(after)], 1))
        return found.float()

    def latents(self, maps: Tensor) -> Tensor:
        """Maps (N, latent, Y', X') as patches (N, K, row * column * channel)."""
        cut = maps.unflatten(3, (self.grid, self.patch)).unflatten(2, (self.grid, self.patch))
        return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def maps(self, latents: Tensor) -> Tensor:
        """The inverse of `latents`: (N, K, features) to (N, latent, Y', X')."""
        cut = latents.unflatten(2, (self.patch, self.patch, -1))
        cut = cut.unflatten(1, (self.grid, self.grid))
        return cut.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def change(self, before: Tensor, action: Tensor, after: Tensor) -> Change:
        """The change between frames (N, C, Y, X) in [0, 1] by actions (N, A)."""
        z = self.latents(self.encode(before, action, after))
        return self.quantized(z)

    def quantized(self, z: Tensor) -> Change:
        """Latents (N, K, features) quantised."""
        found: Quantized = self.quantizer(self.project(z).float())
        return Change(z, found, self.restore(found.output))

    def tokens(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Tokens (N, K) of the change between frames (N, C, Y, X) in [0, 1] by actions (N, A)."""
        z = self.latents(self.encode(before, action, after))
        return self.quantizer.indices(self.project(z).float())

    def words(self, tokens: Tensor) -> Tensor:
        """Latents (..., features) that tokens (...) stand for."""
        found: Tensor = self.restore(self.quantizer.rows(tokens))
        return found

    def decode(self, before: Tensor, action: Tensor, latents: Tensor) -> Tensor:
        """The next frames (N, C, Y, X), as the networks see them, of frames, actions (N, A) and
        latents (N, K, features)."""
        planes = (action @ self.decoder_action.weight).unflatten(1, (-1, self.side, self.side))
        parts = [self.frame(self.pixels(before)), planes, self.maps(latents)]
        found: Tensor = self.decoder(torch.cat([x.float() for x in parts], 1))
        return found.float()

    def shown(self, before: Tensor, action: Tensor, tokens: Tensor) -> Tensor:
        """The next frames (N, C, Y, X) as bytes: rounded, as they are seen again."""
        decoded = self.decode(before, action, self.words(tokens))
        return (self.pixels.back(decoded) * 255).round().to(torch.uint8)

    @torch.no_grad()
    def follow(self, inputs: Tensor, index: Tensor, rand: Rand | None = None) -> dict[str, Tensor]:
        """The code-book moves after inputs (..., code_dim) chose words `index` (...).

        Words that are hardly used are revived then, where that is due.
        """
        q = self.quantizer
        due = self.revive_updates is None or int(q.moves) < self.revive_updates
        q.move(inputs, index)
        entropy, most = float(q.entropy()), math.log2(q.codes)
        revived = torch.zeros((), dtype=torch.int64)
        if (due or entropy < 1) and entropy < most - 2:
            revived = q.revive(inputs, rand)
        return {"revived": revived.float(), "codebook_entropy": q.entropy()}

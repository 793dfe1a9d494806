"""Frames to tokens and back: encoder with code-book, and decoder."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from worldflux.core.interfaces import Decoder, ObservationEncoder
from worldflux.core.output import ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand, randint
from worldflux.core.state import State
from worldflux.errors import CapabilityError
from worldflux.nn.pixels import Pixels
from worldflux.nn.vector_quantizer import Quantized, VectorQuantizer, kmeans
from worldflux.specs import TensorSpec
from worldflux_iris.iris.config import ModelConfig
from worldflux_iris.iris.networks import ImageDecoder, ImageEncoder
from worldflux_iris.spaces import KEY


class Tokenizer(ObservationEncoder):
    """Images to tokens (N,): each latent becomes the number of the nearest word.

    The code-book belongs to it, as tokens mean nothing without: `words` gives their latents.
    """

    quantizing: Tensor
    idle: Tensor

    def __init__(self, c: ModelConfig, image: TensorSpec) -> None:
        super().__init__()
        channels, side, other = image.shape
        if side != other or side % c.downscale:
            raise CapabilityError(
                f"IRIS needs square images whose side is a multiple of {c.downscale} (patch and "
                f"halvings), got {image.shape}. Set env.size, or model.multipliers."
            )
        self.side = side // c.downscale
        self.pixels = Pixels(image.shape, c.whiten)
        self.net = ImageEncoder(c, channels, side)
        self.quantizer = VectorQuantizer(c.vocab, c.code_dim)
        self.revive_after = c.revive_after
        self.register_buffer("quantizing", torch.tensor(c.quantize_after == 0))
        self.register_buffer("idle", torch.zeros(c.vocab, dtype=torch.int64))

    def latents(self, image: Tensor) -> Tensor:
        """Images (N', C, Y, X), of bytes or in [0, 1], to latents (N', N, code_dim)."""
        found: Tensor = self.net(self.pixels(image)).flatten(2).transpose(1, 2)
        return found.float()

    def forward(self, obs: dict[str, Tensor]) -> State:
        return State({"tokens": self.quantizer.indices(self.latents(obs[KEY]))})

    def words(self, tokens: Tensor) -> Tensor:
        """Latents (..., code_dim) that tokens (...) stand for."""
        return self.quantizer.rows(tokens)

    def quantized(self, image: Tensor) -> tuple[Tensor, Quantized]:
        """What the decoder gets (N', N, code_dim) in training, and how that was quantised."""
        z = self.latents(image)
        found: Quantized = self.quantizer(z)
        return torch.where(self.quantizing, found.output, z), found

    @torch.no_grad()
    def start(self, image: Tensor, rand: Rand | None = None) -> None:
        """Quantise from now on, with words where the latents of images (N', C, Y, X) are."""
        z = self.latents(image).flatten(0, 1)
        count = self.quantizer.codes
        self.quantizer.replace(kmeans(z, count, rand=rand), torch.arange(count, device=z.device))
        self.quantizing.fill_(True)

    @torch.no_grad()
    def revive(self, image: Tensor, rand: Rand | None = None) -> Tensor:
        """Put words that were not chosen for long where latents of images (N', C, Y, X) are.

        How many (0-d). The draw "revived" (V,) says which latents.
        """
        z = self.latents(image).flatten(0, 1)
        chosen = torch.bincount(self.quantizer.indices(z), minlength=self.quantizer.codes) > 0
        self.idle.add_(1).masked_fill_(chosen, 0)
        dead = self.idle > (self.revive_after or 0)
        pick = (rand or Rand()).draw(
            "revived", (len(dead),), randint(len(z)), device=z.device, shared=True
        )
        rows = torch.where(dead[:, None], z[pick], self.quantizer.codebook)
        self.quantizer.replace(rows, torch.arange(len(dead), device=z.device))
        self.idle.masked_fill_(dead, 0)
        return dead.sum()


class TokenDecoder(Decoder):
    """A State to predictions: its "words" (N, code_dim) to an image, its logits to means.

    Sampled rewards and ends are in `aux`. The words are put into the State by the model: a decoder
    in this slot needs no code-book.
    """

    def __init__(self, c: ModelConfig, image: TensorSpec, pixels: Pixels) -> None:
        super().__init__()
        self.net = ImageDecoder(c, image.shape[0], image.shape[1])
        self.side = image.shape[1] // c.downscale
        self._pixels = [pixels]  # it belongs to the tokenizer

    def reconstruct(self, words: Tensor) -> Tensor:
        """Words (N', N, code_dim) to images (N', C, Y, X) as the networks see them."""
        found: Tensor = self.net(words.transpose(1, 2).unflatten(2, (self.side, self.side)))
        return found.float()

    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> ModelOutput:
        found = {}
        if keys is None or KEY in keys:
            found[KEY] = self._pixels[0].back(self.reconstruct(state["words"]))
        if keys is None or "reward" in keys:
            chances = state["reward_logits"].float().softmax(-1)
            found["reward"] = chances[..., 2] - chances[..., 0]
        if keys is None or "continue" in keys:
            found["continue"] = state["end_logits"].float().softmax(-1)[..., 0]
        aux = {key: state[key] for key in ("reward", "ended") if key in state}
        return ModelOutput(found, aux=aux)

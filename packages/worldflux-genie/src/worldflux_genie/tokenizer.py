"""The video tokenizer: frames to tokens, each given the frames before it, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from worldflux.core.interfaces import Decoder, ObservationEncoder
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.vector_quantizer import Quantized
from worldflux_genie import history
from worldflux_genie.config import ModelConfig
from worldflux_genie.patches import grid, patchify, pixels, unpatchify
from worldflux_genie.quantize import Quantizer, quantizer
from worldflux_genie.transformer import STTransformer

FRAMES, SEEN = "cache.frames", "cache.seen"
"""What was really seen, (B, T, C, Y, X) and (B, T); tokens of imagined frames have no frame."""


class VideoTokenizer(ObservationEncoder):
    """Patches to features to the numbers of codes; attention over time is causal."""

    sees_history = True

    def __init__(self, config: ModelConfig, key: str, image: tuple[int, ...]) -> None:
        super().__init__()
        c = config.tokenizer
        self.key, self.frames, self.patch = key, config.frames, c.patch
        rows, columns = grid(image, c.patch)
        self.tokens = rows * columns
        patch = c.patch**2 * image[0]
        self.quantizer: Quantizer = quantizer(c.quantizer)
        self.net = STTransformer(c.encoder, patch, c.quantizer.width, config.frames, self.tokens)

    def features(
        self, video: Tensor, mask: Tensor | None = None, place: Tensor | None = None
    ) -> Tensor:
        """Videos (B, T, C, Y, X) -> (B, T, N, L), before they are quantized."""
        found: Tensor = self.net(patchify(pixels(video), self.patch), mask, place)
        return found

    def quantized(
        self, video: Tensor, is_first: Tensor | None = None, rand: Rand | None = None
    ) -> Quantized:
        """Videos (B, T, C, Y, X) as codes (B, T, N, L) and their numbers (B, T, N).

        `is_first` (B, T) says where episodes begin; none sees another's frames.
        """
        place, mask = (None, None) if is_first is None else history.places(is_first)
        return self.quantizer.chosen(self.features(video, mask, place), rand)

    def forward(self, obs: dict[str, Tensor]) -> State:
        """First frames (B, C, Y, X) -> "token" (B, N) and the "frame" itself, uint8."""
        frame = _kept(obs[self.key])
        index: Tensor = self.quantizer(self.features(frame[:, None])).index
        return State({"token": index[:, 0], "frame": frame})

    @torch.no_grad()
    def sequence(self, state: State, obs: dict[str, Tensor], is_first: Tensor) -> State:
        """Frames (B, T, C, Y, X) that follow those a State (B, ...) has seen, as in `forward`.

        A row sees the last `frames` frames of its episode; those it only imagined are hidden.
        """
        video, steps = _kept(obs[self.key]), is_first.shape[1]
        length = state["length"]
        if steps <= self.frames and not history.some(length > 0):
            place, mask = history.places(is_first)
            index = self.quantizer(self.features(video, mask, place)).index
            return State({"token": index, "frame": video})
        columns, tokens = self._remembered(state, video), []
        for t in range(steps):
            columns, length = history.cleared(columns, length, is_first[:, t])
            columns, length = history.made_room(columns, length)
            columns = {
                FRAMES: history.put(columns[FRAMES], length, video[:, t]),
                SEEN: history.put(columns[SEEN], length, torch.ones_like(is_first[:, t])),
            }
            tokens.append(self._newest(columns, length))
            length = length + 1
        return State({"token": torch.stack(tokens, 1), "frame": video})

    def _remembered(self, state: State, video: Tensor) -> dict[str, Tensor]:
        """What the State has seen; without its caches nothing."""
        rows = video.shape[0]
        if FRAMES in state:
            return {FRAMES: state[FRAMES], SEEN: state[SEEN]}
        frames = video.new_zeros(rows, self.frames, *video.shape[2:])
        return {FRAMES: frames, SEEN: torch.zeros_like(frames[:, :, 0, 0, 0], dtype=torch.bool)}

    def _newest(self, columns: dict[str, Tensor], length: Tensor) -> Tensor:
        """The tokens (B, N) of the frame at place `length` (B,)."""
        count = history.longest(length + 1, self.frames)
        frames, seen = columns[FRAMES][:, :count], columns[SEEN][:, :count]
        causal = torch.ones(count, count, dtype=torch.bool, device=frames.device).tril()
        itself = torch.eye(count, dtype=torch.bool, device=frames.device)
        features = self.features(frames, causal & seen[:, None] | itself)
        newest = features[torch.arange(len(length), device=length.device), length]
        index: Tensor = self.quantizer(newest).index
        return index


class FrameDecoder(Decoder):
    """Codes of a video (B, T, N, L) to its frames; each sees those before it."""

    def __init__(
        self, config: ModelConfig, key: str, image: tuple[int, ...], codes: Quantizer
    ) -> None:
        super().__init__()
        c = config.tokenizer
        self.key, self.image, self.patch = key, image, c.patch
        rows, columns = grid(image, c.patch)
        patch = c.patch**2 * image[0]
        self.net = STTransformer(c.decoder, c.quantizer.width, patch, config.frames, rows * columns)
        self._codes = (codes,)  # the tokenizer's, held there: in a tuple it is no part of this one

    def video(
        self, codes: Tensor, mask: Tensor | None = None, place: Tensor | None = None
    ) -> Tensor:
        """Codes (B, T, N, L) -> videos (B, T, C, Y, X) in [0, 1]."""
        patches = self.net(codes, mask, place).float().sigmoid()
        return unpatchify(patches, self.patch, self.image)

    def of_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, N) -> videos (B, T, C, Y, X) in [0, 1]."""
        return self.video(self._codes[0].rows(tokens))

    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> Mapping[str, Tensor]:
        """The newest frame (B, C, Y, X) of each State (B, ...)."""
        if keys is not None and self.key not in keys:
            return {}
        tokens, last = state["tokens"], (state["length"] - 1).clamp(min=0)
        video = self.of_tokens(tokens[:, : history.longest(last + 1, tokens.shape[1])])
        return {self.key: video[torch.arange(len(last), device=last.device), last]}


class Tokenized(NamedTuple):
    """A video's codes, and what the decoder makes of them, (B, T, C, Y, X)."""

    codes: Quantized
    video: Tensor


def reconstruct(
    encoder: VideoTokenizer,
    decoder: FrameDecoder,
    video: Tensor,
    is_first: Tensor,
    rand: Rand | None = None,
) -> Tokenized:
    """Videos (B, T, C, Y, X) to codes and back; gradients go straight through the codes."""
    place, mask = history.places(is_first)
    codes = encoder.quantizer.chosen(encoder.features(video, mask, place), rand)
    return Tokenized(codes, decoder.video(codes.output, mask, place))


def _kept(image: Tensor) -> Tensor:
    """Images (...) as they are remembered, in 256 steps."""
    return (image.clamp(0, 1) * 255).round().byte() if image.is_floating_point() else image.byte()

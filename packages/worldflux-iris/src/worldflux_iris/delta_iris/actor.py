"""Actor and critic of Delta-IRIS over frames, with a memory (an LSTM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldflux.nn.symlog import symexp
from worldflux_iris.delta_iris.config import ConvConfig
from worldflux_iris.delta_iris.dynamics import BINS, LIMIT
from worldflux_iris.delta_iris.networks import FrameEncoder, flat

Memory = tuple[Tensor, Tensor]


class DeltaActorCritic(nn.Module):
    """A frame encoder, an LSTM, a linear policy and a linear value that starts at zero."""

    bins: Tensor

    def __init__(
        self, c: ConvConfig, image: Sequence[int], choices: int, memory: int, two_hot: bool
    ) -> None:
        super().__init__()
        self.cnn = FrameEncoder(c, image[0])
        size = c.latent * (image[1] // c.downscale) * (image[2] // c.downscale)
        self.lstm = nn.LSTMCell(size, memory)
        self.policy = nn.Linear(memory, choices)
        self.value = nn.Linear(memory, BINS if two_hot else 1)
        self.two_hot = two_hot
        self.register_buffer("bins", torch.linspace(-LIMIT, LIMIT, BINS), persistent=False)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def initial(self, rows: int) -> Memory:
        """The memory (rows, memory), twice, before anything was seen."""
        zeros = self.policy.weight.new_zeros(rows, self.policy.in_features)
        return zeros, zeros

    def forward(self, frame: Tensor, h: Tensor, c: Tensor) -> Memory:
        """The memory (B, memory), twice, after a frame (B, C, Y, X) in [0, 1]."""
        found: Memory = self.lstm(flat(self.cnn(frame)), (h, c))
        return found

    def heads(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, A) and what the value is made of (B, 1 or bins), in float32."""
        return self.policy(h).float(), self.value(h).float()

    def scalar(self, value: Tensor) -> Tensor:
        """Values (...) of what `heads` gave for them (..., 1 or bins)."""
        if self.two_hot:
            return symexp((value.softmax(-1) * self.bins).sum(-1))
        return value[..., 0]

    @torch.no_grad()
    def burned_in(self, frames: Tensor, is_first: Tensor) -> Memory:
        """The memory (B, memory), twice, after frames (B, T, C, Y, X); new where `is_first`."""
        h, c = self.initial(len(frames))
        for t in range(frames.shape[1]):
            begun = is_first[:, t, None]
            h, c = self(frames[:, t], h.masked_fill(begun, 0), c.masked_fill(begun, 0))
        return h, c

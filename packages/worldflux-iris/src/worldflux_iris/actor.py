"""Actor and critic over the frames that a dream shows, with a memory (an LSTM)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEMORY = ("actor.h", "actor.c")


class ActorCritic(nn.Module):
    """Convolutions, each followed by a halving; an LSTM; a linear policy and a linear value."""

    def __init__(
        self, image: Sequence[int], choices: int, channels: Sequence[int], memory: int
    ) -> None:
        super().__init__()
        sizes = [image[0], *channels]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        side, other = (size // 2 ** len(channels) for size in image[1:])
        self.lstm = nn.LSTMCell(channels[-1] * side * other, memory)
        self.policy, self.value = nn.Linear(memory, choices), nn.Linear(memory, 1)

    def initial(self, rows: int) -> tuple[Tensor, Tensor]:
        """The memory (rows, memory), twice, before anything was seen."""
        zeros = self.policy.weight.new_zeros(rows, self.policy.in_features)
        return zeros, zeros

    def forward(self, seen: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The memory (B, memory), twice, after a normalised frame (B, C, Y, X)."""
        x = seen
        for conv in self.convs:
            x = F.relu(F.max_pool2d(conv(x), 2))
        found: tuple[Tensor, Tensor] = self.lstm(x.flatten(1), (h, c))
        return found

    def heads(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, A) and values (B,), in float32, of the memory (B, memory)."""
        return self.policy(h).float(), self.value(h).float()[..., 0]

    @torch.no_grad()
    def burned_in(self, seen: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The memory (B, memory), twice, after normalised frames (B, T, C, Y, X).

        Rows of `mask` (B, T) that do not hold keep their memory.
        """
        h, c = self.initial(len(seen))
        for t in range(seen.shape[1]):
            held = torch.ones_like(h[:, :1]) if mask is None else mask[:, t, None].to(h)
            after = self(seen[:, t], h, c)
            h, c = (torch.where(held > 0, new, old) for new, old in zip(after, (h, c), strict=True))
        return h, c

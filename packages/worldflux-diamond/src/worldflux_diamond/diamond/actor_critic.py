"""DIAMOND's policy and value: a small residual network on frames, and a memory of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux.core.rand import Rand, gumbel
from worldflux.nn.pixels import Pixels
from worldflux_diamond.diamond.blocks import PlainBlock, conv3x3, init_lstm
from worldflux_diamond.diamond.config import AgentConfig

Memory = tuple[Tensor, Tensor]
"""h and c (B, D)."""


class ActorCritic(nn.Module):
    """Frames (B, C, Y, X) in [-1, 1], one after another, to a choice and a value."""

    def __init__(
        self, config: AgentConfig, image: tuple[int, ...], actions: int, whiten: bool = False
    ) -> None:
        super().__init__()
        c, (channels, *sides) = config, image
        self.size = c.lstm
        self.pixels = Pixels(image, whiten, mean=0.0, scale=1.0)
        layers: list[nn.Module] = [conv3x3(channels, c.channels[0])]
        before = [c.channels[0], *c.channels[:-1]]
        for low, own, down in zip(before, c.channels, c.down, strict=True):
            layers.append(PlainBlock(low, own))
            if down:
                layers.append(nn.MaxPool2d(2))
                sides = [side // 2 for side in sides]
        self.encoder = nn.Sequential(*layers)
        self.lstm = nn.LSTMCell(c.channels[-1] * sides[0] * sides[1], c.lstm)
        self.value, self.choice = nn.Linear(c.lstm, 1), nn.Linear(c.lstm, actions)
        init_lstm(self.lstm)
        for head in (self.value, self.choice):  # at first all actions are alike, and worth nothing
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def empty(self, rows: int, device: torch.device) -> Memory:
        """The memory (B, D) before the first frame."""
        return torch.zeros(rows, self.size, device=device), torch.zeros(
            rows, self.size, device=device
        )

    def forward(self, frame: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Logits (B, A) and value (B,) after a frame (B, C, Y, X), and the memory (B, D)."""
        h, c = self.lstm(self.encoder(self.pixels(frame)).flatten(1), memory)
        return self.choice(h), self.value(h)[:, 0], (h, c)

    def burned_in(self, frames: Tensor, held: Tensor) -> Memory:
        """The memory (B, D) of frames (B, N, C, Y, X), of which those that are `held` (B, N)."""
        memory = self.empty(frames.shape[0], frames.device)
        seen = (
            self.encoder(self.pixels(frames.flatten(0, 1)))
            .flatten(1)
            .unflatten(0, frames.shape[:2])
        )
        for t in range(frames.shape[1]):
            after = self.lstm(seen[:, t], memory)
            keep = held[:, t, None]
            memory = (
                torch.where(keep, after[0], memory[0]),
                torch.where(keep, after[1], memory[1]),
            )
        return memory


def sampled(logits: Tensor, rand: Rand) -> Tensor:
    """Choices (B,) of logits (B, A), by the draw "action" (gumbel)."""
    noise = rand.draw("action", tuple(logits.shape), gumbel, device=logits.device)
    return (logits.float() + noise).argmax(-1)

"""DIAMOND's model of rewards and ends: a network over pairs of frames, and a memory of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux.nn.pixels import Pixels
from worldflux_diamond.diamond.blocks import BlockChain, Downsample, conv3x3, init_lstm
from worldflux_diamond.diamond.config import RewardEndConfig

SIGNS, ENDS = 3, 2
"""Classes: a reward of -1, 0 or 1; going on or ending."""


class PairEncoder(nn.Module):
    """A frame and the next one (B, 2 C, Y, X) under a condition (B, D), to small images."""

    def __init__(self, config: RewardEndConfig, channels: int) -> None:
        super().__init__()
        c = config
        before, last = [c.channels[0], *c.channels[:-1]], c.channels[-1]
        self.conv_in = conv3x3(2 * channels, c.channels[0])
        self.chains = nn.ModuleList(
            BlockChain([low, *[own] * (n - 1)], [own] * n, c.cond, attends)
            for low, own, n, attends in zip(before, c.channels, c.depths, c.attention, strict=True)
        )
        self.chains.append(BlockChain([last, last], [last, last], c.cond, True))
        shrinking = [Downsample(channels) for channels in c.channels[:-1]]
        self.shrink = nn.ModuleList([nn.Identity(), *shrinking, nn.Identity()])

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        x = self.conv_in(x)
        for chain, shrink in zip(self.chains, self.shrink, strict=True):
            x, _ = chain(shrink(x), cond)
        return x


class RewardEnd(nn.Module):
    """Pairs of frames (C, Y, X) and the action (A,) between them, to classes of reward and end."""

    def __init__(
        self, config: RewardEndConfig, image: tuple[int, ...], action: int, whiten: bool = False
    ) -> None:
        super().__init__()
        c, (channels, *sides) = config, image
        for _ in c.channels[1:]:
            sides = [(side + 1) // 2 for side in sides]
        self.action = nn.Linear(action, c.cond, bias=False)
        nn.init.normal_(self.action.weight)  # an embedding, of choices that come one-hot
        self.pixels = Pixels(image, whiten, mean=0.0, scale=1.0)
        self.encoder = PairEncoder(c, channels)
        self.lstm = nn.LSTMCell(c.channels[-1] * sides[0] * sides[1], c.lstm)
        self.head = nn.Sequential(
            nn.Linear(c.lstm, c.lstm), nn.SiLU(), nn.Linear(c.lstm, SIGNS + ENDS, bias=False)
        )
        init_lstm(self.lstm)

    def features(self, frame: Tensor, after: Tensor, action: Tensor) -> Tensor:
        """What the memory is told (B, D) of frames (B, C, Y, X) and actions (B, A)."""
        pair = torch.cat([self.pixels(frame), self.pixels(after)], 1)
        found: Tensor = self.encoder(pair, self.action(action)).flatten(1)
        return found

    def remember(
        self, features: Tensor, memory: tuple[Tensor, Tensor], advance: Tensor, reset: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The memory's h and c (B, T, D) after each of the features (B, T, D').

        Rows where `reset` (B, T) holds forget first; those where `advance` (B, T) does not hold
        keep what they have.
        """
        lstm, (h, c) = self.lstm, memory
        told = torch.nn.functional.linear(features, lstm.weight_ih, lstm.bias_ih + lstm.bias_hh)
        hs, cs = [], []
        for t in range(features.shape[1]):
            forget, go = reset[:, t, None], advance[:, t, None]
            h, c = torch.where(forget, 0, h), torch.where(forget, 0, c)
            after_h, after_c = _lstm_step(told[:, t] + h @ lstm.weight_hh.T, c)
            h, c = torch.where(go, after_h, h), torch.where(go, after_c, c)
            hs.append(h)
            cs.append(c)
        return torch.stack(hs, 1), torch.stack(cs, 1)

    def classes(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of a reward's sign (..., 3) and of an end (..., 2), of a memory's h (..., D)."""
        reward, end = self.head(h).split((SIGNS, ENDS), -1)
        return reward, end


def _lstm_step(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c (B, D) after gates (B, 4 D): input, forget, cell, output."""
    enter, keep, cell, leave = gates.chunk(4, -1)
    c = keep.sigmoid() * c + enter.sigmoid() * cell.tanh()
    return leave.sigmoid() * c.tanh(), c

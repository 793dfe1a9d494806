"""Keys and values over time of finished frames: computed once, used in every step of the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux_genie.history import longest, some


@dataclass
class Past:
    """Keys and values of each layer (B * N, heads, T + 1, d); the last place is the next frame's.

    `length` (B,) frames of each row count; `seen` (B, T + 1) says which places those are, None
    where all of them do.
    """

    keys: list[Tensor]
    values: list[Tensor]
    length: Tensor
    seen: Tensor | None

    @classmethod
    def of(cls, keys: list[Tensor], values: list[Tensor], length: Tensor) -> Past:
        """From keys and values (B * N, heads, T, d) of T frames, of which `length` (B,) count."""
        frames = keys[0].shape[2]
        seen = None
        if some(length != frames):
            places = torch.arange(frames + 1, device=length.device)
            seen = (places < length[:, None]) | (places == frames)
        return cls([_longer(k) for k in keys], [_longer(v) for v in values], length, seen)

    def joined(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, with those (B * N, heads, 1, d) of the next frame."""
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, -1:], values[:, :, -1:] = key.to(keys.dtype), value.to(values.dtype)
        return keys.to(key.dtype), values.to(value.dtype)

    def mask(self, tokens: int) -> Tensor | None:
        """Which places each query sees, (B * N, 1, 1, T + 1), for N tokens."""
        if self.seen is None:
            return None
        return self.seen.repeat_interleave(tokens, 0)[:, None, None]

    def packed(self, frames: int) -> dict[str, Tensor]:
        """Keys and values (B, L, N, heads, frames, d), the next frame's at its own place."""
        rows, stored = self.length.shape[0], {}
        places = torch.arange(frames, device=self.length.device)
        for name, layers in (("keys", self.keys), ("values", self.values)):
            x = torch.stack(layers, 0).unflatten(1, (rows, -1)).transpose(0, 1)
            held = x.shape[-2] - 1  # (B, L, N, heads, held + 1, d)
            whole = x.new_zeros(*x.shape[:-2], frames, x.shape[-1])
            whole[..., :held, :] = x[..., :-1, :]
            here = (places == self.length[:, None])[:, None, None, None, :, None]
            known = (places < self.length[:, None])[:, None, None, None, :, None]
            stored[name] = torch.where(here, x[..., -1:, :], whole.masked_fill(~known, 0))
        return stored

    @classmethod
    def unpacked(cls, keys: Tensor, values: Tensor, length: Tensor) -> Past:
        """From what `packed` gave (B, L, N, heads, frames, d), of which `length` (B,) count."""
        most = longest(length, keys.shape[4])
        held = [
            [x[:, layer, :, :, :most].flatten(0, 1) for layer in range(x.shape[1])]
            for x in (keys, values)
        ]
        return cls.of(held[0], held[1], length)


def _longer(x: Tensor) -> Tensor:
    """A copy with room for one more place: (R, heads, T, d) -> (R, heads, T + 1, d)."""
    return torch.cat([x, x.new_zeros(*x.shape[:2], 1, x.shape[3])], 2)

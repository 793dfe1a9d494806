"""Keys and values that a transformer keeps of the tokens it has seen."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

NAMES = ("cache.keys", "cache.values", "cache.length")


class KeyValueCache:
    """A window of W tokens for each row: per layer keys and values (B, heads, W, D).

    Rows may hold different numbers of tokens, `length` (B,). Tensors given are copied first, so
    that the caller's stay as they are; `own=True` says that they may be written to. Where
    gradients flow nothing is written in place.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: Tensor, own: bool = False) -> None:
        self.written = not torch.is_grad_enabled()
        if self.written and not own:
            keys, values = keys.clone(), values.clone()
        self._stacked = (keys, values)
        self.keys, self.values = list(keys.unbind(1)), list(values.unbind(1))
        self.length = length
        self._find_offset()

    @classmethod
    def empty(
        cls, rows: int, layers: int, heads: int, window: int, dim: int, like: Tensor
    ) -> KeyValueCache:
        """One without tokens, for `rows`, on the device and of the type of `like` (any shape)."""
        shape = (rows, layers, heads, window, dim)
        length = torch.zeros(rows, dtype=torch.int64, device=like.device)
        return cls(like.new_zeros(shape), like.new_zeros(shape), length, own=True)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], own: bool = False) -> KeyValueCache:
        """That of a State's tensors: "cache.keys" and "cache.values" (B, layers, heads, W, D),
        "cache.length" (B,)."""
        keys, values, length = (tensors[name] for name in NAMES)
        return cls(keys, values, length, own)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a State, as `of` takes them."""
        keys, values = self._stacked
        if not self.written:
            keys, values = torch.stack(self.keys, 1), torch.stack(self.values, 1)
        return dict(zip(NAMES, (keys, values, self.length), strict=True))

    @property
    def window(self) -> int:
        """W, the most tokens a row can hold."""
        return self.keys[0].shape[2]

    def where(self, mask: Tensor, other: KeyValueCache) -> KeyValueCache:
        """This one's rows where `mask` (B,) holds, those of `other` elsewhere."""
        own, others = self.tensors(), other.tensors()
        chosen = {
            name: torch.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, others[name])
            for name, x in own.items()
        }
        return KeyValueCache.of(chosen, own=True)

    def emptied(self, mask: Tensor) -> KeyValueCache:
        """The same with the rows of `mask` (B,) forgotten."""
        emptied = {
            name: x.masked_fill(mask.reshape(-1, *[1] * (x.ndim - 1)), 0)
            for name, x in self.tensors().items()
        }
        return KeyValueCache.of(emptied, own=True)

    def room(self, count: int) -> None:
        """Raise `ValueError` unless every row has room for `count` tokens more."""
        longest = int(self.length.max()) if self.offset is None else self.offset
        if longest + count > self.window:
            raise ValueError(
                f"The cache holds {longest} of {self.window} tokens: there is no room for {count} "
                "more. Begin it anew."
            )

    def places(self, count: int) -> Tensor:
        """Places in the window of the next `count` tokens: (count,), or (B, count)."""
        steps = torch.arange(count, device=self.length.device)
        return steps + (self.length[:, None] if self.offset is None else self.offset)

    def mask(self, count: int) -> Tensor | None:
        """What the next `count` tokens may see, themselves and earlier ones; None: all there is.

        (count, held), or (B, 1, count, W) where rows hold different numbers.
        """
        if self.offset is None:
            window = torch.arange(self.window, device=self.length.device)
            return window <= self.places(count)[:, None, :, None]
        if count == 1:
            return None
        held = torch.arange(self.offset + count, device=self.length.device)
        return held <= self.places(count)[:, None]

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put N tokens' keys and values (B, heads, N, D) behind those held; all to attend to."""
        kept = (self.keys, self.values)
        for tensors, new in zip(kept, (key, value), strict=True):
            tensors[layer] = self._with(tensors[layer], new.to(tensors[layer].dtype))
        if self.offset is None:
            return self.keys[layer], self.values[layer]
        held = self.offset + key.shape[2]
        return self.keys[layer][:, :, :held], self.values[layer][:, :, :held]

    def advance(self, count: int) -> None:
        """Count `count` tokens as held, after every layer got them."""
        self.length = self.length + count
        if self.offset is not None:
            self.offset += count

    def _with(self, kept: Tensor, new: Tensor) -> Tensor:
        """kept (B, heads, W, D) with new (B, heads, N, D) at its place."""
        count = new.shape[2]
        if self.offset is None:
            index = self.places(count)[:, None, :, None].expand_as(new)
            return kept.scatter_(2, index, new) if self.written else kept.scatter(2, index, new)
        if not self.written:
            return kept.slice_scatter(new, 2, self.offset, self.offset + count)
        kept[:, :, self.offset : self.offset + count] = new
        return kept

    def _find_offset(self) -> None:
        """The common length, None where rows differ: equal ones need no masks."""
        length = self.length
        if length.is_meta:  # shapes alone matter there
            self.offset: int | None = 0
            return
        same = len(length) > 0 and bool((length == length[0]).all())
        self.offset = int(length[0]) if same else None

"""Published weights under our names: places in our tensors, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldflux.errors import StorageError


class Place(NamedTuple):
    """Where a published tensor is: under `name` of ours, as third `part` of its rows, if any."""

    name: str
    part: int | None

    def of(self, tensor: Tensor) -> Tensor:
        """Their rows of our tensor (any shape)."""
        return tensor if self.part is None else tensor.chunk(3)[self.part]


def load(
    module: nn.Module, weights: Mapping[str, Tensor], place: Callable[[str], Place | None]
) -> None:
    """Put `weights` into `module` where `place` says (None: unused); all must fit, none lack."""
    own = {**dict(module.named_buffers()), **dict(module.named_parameters())}
    filled = {name: 0 for name, _ in module.named_parameters()}
    with torch.no_grad():
        for name, value in weights.items():
            where = place(name)
            if where is None:
                continue
            if where.name not in own:
                raise StorageError(f"The agent has no {where.name!r} for the file's {name!r}.")
            target = where.of(own[where.name])
            if target.shape != value.shape:
                raise StorageError(
                    f"{name!r} has shape {tuple(value.shape)} in the file and "
                    f"{tuple(target.shape)} in the agent: choose the sizes it was trained with."
                )
            target.copy_(value)
            filled[where.name] = filled.get(where.name, 0) + value.numel()
    missing = [n for n, p in module.named_parameters() if filled[n] != p.numel()]
    if missing:
        raise StorageError(f"The file has nothing for {missing[0]!r}: it is of another kind.")

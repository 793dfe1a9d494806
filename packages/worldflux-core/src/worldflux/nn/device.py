"""Where a module lives."""

from __future__ import annotations

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """The device of `module`'s parameters; torch's default device where it has none."""
    first = next(module.parameters(), None)
    return torch.empty(0).device if first is None else first.device

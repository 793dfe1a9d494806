"""Actions on the scale of the data, in training and in planning alike."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from worldflux.core.source import Source

_LEAST_STD = 1e-3


class Scaled(Protocol):
    """A conditioner of actions that takes them less `mean` over `std`, buffers of one size."""

    mean: Tensor
    std: Tensor


def fit_to_actions(conditioner: Scaled, source: Source) -> None:
    """Take mean and deviation from the data's statistics; a deviation of at least 0.001."""
    found = source.statistics("action")
    conditioner.mean.copy_(torch.as_tensor(found.mean).flatten())
    conditioner.std.copy_(torch.as_tensor(found.std).flatten().clamp(min=_LEAST_STD))

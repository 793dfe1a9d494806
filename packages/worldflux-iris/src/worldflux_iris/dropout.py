"""Dropout whose numbers come from `rand`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from worldflux.core.rand import Rand, randint
from worldflux.nn.device import device_of


@contextmanager
def dropping(module: nn.Module, rate: float, rand: Rand | None) -> Iterator[None]:
    """In here the numbers of `module`'s dropout come from the draw "dropout" of `rand`.

    torch's dropout knows its global generator alone: that one is set for the time, then put back.
    """
    if not rate or not module.training:
        yield
        return
    device = device_of(module)
    seed = (rand or Rand()).draw("dropout", (1,), randint(2**31), shared=True)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        yield

"""The randomness of TD-MPC2 as named tensors, drawn before it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from worldflux.core.interfaces import Draws
from worldflux_tdmpc2.images import PAD

Source = Callable[[torch.device, torch.Generator | None], Tensor]
_CHANCES = 2**16
HEADS = 2
"""Q functions that targets, policy and planning choose of the ensemble."""


def normal(*shape: int) -> Source:
    """Standard normal numbers."""

    def draw(device: torch.device, generator: torch.Generator | None) -> Tensor:
        return torch.randn(shape, device=_home(device, generator), generator=generator).to(device)

    return draw


def heads(members: int, *lead: int) -> Source:
    """Two different of `members` (*lead, 2), each pair equally likely."""

    def draw(device: torch.device, generator: torch.Generator | None) -> Tensor:
        keys = torch.rand(*lead, members, device=_home(device, generator), generator=generator)
        return keys.topk(HEADS, -1).indices.to(device)

    return draw


def keep_mask(rate: float, *shape: int) -> Source:
    """Dropout's mask: 0 with probability `rate`, to 2^-16, else what keeps the mean at 1.

    Four elements share one 64-bit random integer: several million are needed per update.
    """
    dropped = round(rate * _CHANCES)
    count = math.prod(shape)

    def draw(device: torch.device, generator: torch.Generator | None) -> Tensor:
        home = _home(device, generator)
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=home)
        chances = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
        kept = (chances >= dropped - _CHANCES // 2).float().mul_(_CHANCES / (_CHANCES - dropped))
        return kept.reshape(shape).to(device)

    return draw


def shift(*lead: int) -> Source:
    """Image shifts (*lead, 2) of 0 to 6 pixels; 3 does not move."""

    def draw(device: torch.device, generator: torch.Generator | None) -> Tensor:
        home = _home(device, generator)
        return torch.randint(2 * PAD + 1, (*lead, 2), device=home, generator=generator).to(device)

    return draw


def complete(
    sources: Mapping[str, Source],
    given: Draws | None,
    device: torch.device,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """The draws that were given, and fresh ones for the rest of `sources`."""
    given = given or {}
    return {
        name: given[name] if name in given else source(device, generator)
        for name, source in sources.items()
    }


def _home(device: torch.device, generator: torch.Generator | None) -> torch.device:
    return device if generator is None else generator.device

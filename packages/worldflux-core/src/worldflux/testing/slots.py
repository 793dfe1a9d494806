"""Slots that do the same as another one, a little off: what the slot check puts in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from worldflux.core.state import State

_AMOUNT = 0.1


class PerturbedSlot(nn.Module):
    """Delegates every call to `inner` and shifts all tensors of numbers that come back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return perturbed(self.inner(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            value = getattr(super().__getattr__("inner"), name)
        if not callable(value) or isinstance(value, nn.Module) or name in _UNTOUCHED:
            return value
        return lambda *args, **kwargs: perturbed(value(*args, **kwargs))


_UNTOUCHED = frozenset({"initial"})


def perturbed(value: Any) -> Any:
    """`value` with floats scaled and shifted by about a tenth, and indices in other places."""
    if isinstance(value, Tensor):
        return _shifted(value) if value.is_floating_point() else _rolled(value)
    if isinstance(value, State):
        return State({key: perturbed(tensor) for key, tensor in value.tensors.items()}, value.meta)
    if isinstance(value, Mapping):
        return {key: perturbed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(perturbed(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: perturbed(getattr(value, f.name)) for f in fields(value) if f.init}
        return replace(value, **changed)
    return value


def _rolled(value: Tensor) -> Tensor:
    """Indices (B, N), tokens say, in another order: they stay in their range."""
    return value.roll(1, -1) if value.ndim > 1 and value.dtype == torch.int64 else value


def _shifted(value: Tensor) -> Tensor:
    ramp = torch.linspace(0.5, 1.5, value.shape[-1], device=value.device) if value.ndim else 1.0
    return value * (1 + _AMOUNT) + (_AMOUNT * ramp)

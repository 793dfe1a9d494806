"""Types and ranges of what comes in: what a network would read as something else is told.

Values are looked at on the CPU only: to read one from a GPU would wait for all its work.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux.errors import ContractError
from worldflux.specs import TensorSpec

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_WHITE = 1.5
"""Above this a floating image is not in 0..1, whatever a decoder or resizing has overshot."""


def fitting(name: str, value: Tensor, spec: TensorSpec, lead: int) -> Tensor:
    """An observation (*lead, *shape) in a type that models read right, else a `ContractError`.

    Images are bytes, or floats in 0..1; vectors are float32 where they came as other numbers.
    """
    if spec.discrete:
        return choices(name, value, spec)
    if spec.image:
        _require_image(name, value, lead)
        return value
    return value.float() if value.dtype not in _FLOATS and spec.dtype.startswith("float") else value


def choices(name: str, value: Tensor, spec: TensorSpec) -> Tensor:
    """Indices (..., *shape) of choices, each within its count; floats are left to the model."""
    if value.is_floating_point() or value.device.type != "cpu" or not value.numel():
        return value
    for at, count in enumerate(spec.counts):
        part = value if isinstance(spec.n, int) else value[..., at]
        low, high = (int(end) for end in part.aminmax())
        if low < 0 or high >= count:
            raise ContractError(
                f"{name} has choice {low if low < 0 else high}, expected 0..{count - 1}: there are "
                f"{count} choices, counted from 0."
            )
    return value


def _require_image(name: str, value: Tensor, lead: int) -> None:
    if value.dtype == torch.uint8:
        return
    if not value.is_floating_point():
        raise ContractError(
            f"{name} has type {str(value.dtype).removeprefix('torch.')}, expected uint8 in 0..255 "
            f"or floats in 0..1: pass {name.split('[')[0]}.to(torch.uint8)."
        )
    if value.device.type == "cpu" and value.numel():
        # One image tells the scale of all.
        brightest = float(value.detach().flatten(0, lead - 1)[0].amax())
        if brightest > _WHITE:
            raise ContractError(
                f"{name} has floats up to {brightest:.4g}, expected 0..1 (or uint8 in 0..255): "
                f"pass {name.split('[')[0]}.to(torch.uint8), or divide by 255."
            )

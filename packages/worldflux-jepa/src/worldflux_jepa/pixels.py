"""Images as the encoders here take them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.errors import CapabilityError
from worldflux.specs import TensorSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, by channel: what published encoders were trained with."""


def image_key(obs_spec: Mapping[str, TensorSpec], family: str) -> str:
    """The key of the one image observation; `CapabilityError` where there is none, or several."""
    found = [key for key, spec in obs_spec.items() if len(spec.shape) == 3]
    if len(found) != 1:
        has = ", ".join(f"{key} {spec.shape}" for key, spec in obs_spec.items()) or "nothing"
        raise CapabilityError(
            f"{family} sees one image (C, Y, X), the observations are {has}. Use an environment "
            "or data with images (obs=pixels)."
        )
    return found[0]


def normalised(image: Tensor) -> Tensor:
    """uint8 images (..., C, Y, X) as floats of about mean 0; floats are taken as they are."""
    if image.is_floating_point():
        return image
    three = image.shape[-3] == len(MEAN)
    mean = image.new_tensor(MEAN if three else 0.45, dtype=torch.float32)
    std = image.new_tensor(STD if three else 0.225, dtype=torch.float32)
    if three:
        mean, std = mean[:, None, None], std[:, None, None]
    return (image.float() / 255 - mean) / std

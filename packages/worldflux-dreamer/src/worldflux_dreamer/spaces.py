"""What the Dreamers ask of observation and action spaces."""

from __future__ import annotations

from collections.abc import Mapping

from worldflux.errors import ContractError
from worldflux.specs import TensorSpec


def image_keys(obs_spec: Mapping[str, TensorSpec]) -> list[str]:
    """Keys of images, sorted; all images together are one stack of channels."""
    return sorted(key for key, spec in obs_spec.items() if len(spec.shape) == 3)


def vector_keys(obs_spec: Mapping[str, TensorSpec]) -> list[str]:
    """Keys of everything that is not an image, sorted."""
    return sorted(key for key, spec in obs_spec.items() if len(spec.shape) < 3)


def stacked_shape(obs_spec: Mapping[str, TensorSpec], keys: list[str]) -> tuple[int, int, int]:
    """Shape (C, Y, X) of all images stacked on their channels."""
    shapes = [obs_spec[key].shape for key in keys]
    if len({shape[1:] for shape in shapes}) > 1:
        sizes = ", ".join(f"{key} {obs_spec[key].shape}" for key in keys)
        raise ContractError(f"Images of one observation must have one size, got {sizes}.")
    return sum(shape[0] for shape in shapes), shapes[0][1], shapes[0][2]

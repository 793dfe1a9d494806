"""How each part of a run writes itself into a checkpoint: named tensors, and JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from worldflux.atomic import read_json, write_file, write_json
from worldflux.core.rand import Rand
from worldflux.errors import StorageError


class Part(Protocol):
    """A part of a run that a checkpoint holds."""

    def save(self, folder: Path) -> None:
        """Write everything the rest of the run depends on."""

    def load(self, folder: Path) -> None:
        """Become what was saved; `StorageError` says what cannot be read."""


def write_part(
    folder: Path, name: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Write `<name>.safetensors` and `<name>.json`."""
    write_tensors(folder / f"{name}.safetensors", tensors)
    write_json(folder / f"{name}.json", values)


def read_part(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and values that `write_part` wrote."""
    return read_tensors(folder / f"{name}.safetensors"), read_json(folder / f"{name}.json")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors."""
    own = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    write_file(path, save(own))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file that `write_tensors` wrote, on the CPU."""
    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path} cannot be read: {error}.") from error


def generator_of(rand: Rand) -> torch.Generator:
    """The generator that a part of a run draws from, whose state is saved."""
    assert rand.generator is not None, "a run draws from generators of its own"
    return rand.generator


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }

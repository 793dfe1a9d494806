"""Weights in a safetensors file: its header is compared with a model before a tensor is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from worldflux.errors import StorageError

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
"""torch's names of the types that safetensors knows."""


class Stored(NamedTuple):
    """Type and shape of one tensor in a file."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Stored]:
    """Name, type and shape of every tensor in the file; no tensor is read."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: Stored(
                    _DTYPES.get(part.get_dtype(), part.get_dtype()), tuple(part.get_shape())
                )
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path} cannot be read: {error}.") from error


def require_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Stored], path: Path) -> None:
    """Raise `StorageError` unless names, shapes and types are those of `ours`: none is cast."""
    missing, unknown = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if missing or unknown:
        raise StorageError(
            f"{path} does not fit: missing {missing[:3] or 'none'}, unknown "
            f"{unknown[:3] or 'none'} ({len(missing)} and {len(unknown)} in all). Was a slot "
            "replaced, or another configuration used?"
        )
    for name, tensor in ours.items():
        if tuple(tensor.shape) != theirs[name].shape:
            raise StorageError(
                f"{path}: {name} has shape {theirs[name].shape}, this model needs "
                f"{tuple(tensor.shape)}. Load it without the override that changes it."
            )
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype != theirs[name].dtype:
            raise StorageError(
                f"{path}: {name} holds {theirs[name].dtype}, this model needs {dtype}. Weights are "
                "not cast: convert the model to that type first, or save them in the model's type."
            )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file, on the CPU."""
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path} cannot be read: {error}.") from error


def require_numbers(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Raise `StorageError` for NaN anywhere and for infinity in a parameter (masks may have it)."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name, tensor in weights.items():
        if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
            continue
        value = tensor.float() if tensor.itemsize == 1 else tensor  # torch asks no float8
        wrong = ~value.isfinite() if name in parameters else value.isnan()
        if wrong.any():
            raise StorageError(
                f"{where}: {name} holds {int(wrong.sum())} numbers that are NaN or infinite, as "
                "after training has diverged. Use an older copy."
            )


@contextmanager
def at_most(tensors: int, where: Path) -> Iterator[None]:
    """Stop this thread from building a model of far more parameters and modules than `tensors`.

    What a configuration asks for is built on the meta device before it is compared with the
    weights: that takes no memory for numbers, but a million layers would take hours.
    """
    most, built, thread = 8 * tensors + 1_000, 0, threading.get_ident()

    def count(*_: object) -> None:
        nonlocal built
        built += threading.get_ident() == thread
        if built > most:
            raise StorageError(
                f"The configuration of {where} asks for more than {most} parameters and modules, "
                f"its weights are {tensors} tensors: they do not belong together. Get an undamaged "
                "copy."
            )

    handles = [
        torch_modules.register_module_parameter_registration_hook(count),
        torch_modules.register_module_module_registration_hook(count),
    ]
    try:
        with torch.device("meta"):
            yield
    finally:
        for handle in handles:
            handle.remove()

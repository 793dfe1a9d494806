"""Between tensors, arrays and the types columns are kept in."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux.columns import storage_dtype
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec

Array = NDArray[np.generic]


def torch_dtype(spec: TensorSpec) -> torch.dtype:
    """The torch type of a column."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return dtype


def view_array(tensor: Tensor) -> Array:
    """A CPU tensor's memory as an array of the same shape; bfloat16 as its 16 bits."""
    if tensor.dtype == torch.bfloat16:
        bits: Array = tensor.view(torch.int16).numpy().view(np.uint16)
        return bits
    array: Array = tensor.numpy()
    return array


def view_tensor(array: Array, spec: TensorSpec) -> Tensor:
    """An array of a column's storage type as a tensor of the same memory."""
    if spec.dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def stored_form(name: str, value: Array | Tensor, spec: TensorSpec, lead: int) -> Array:
    """`value` (lead, ...) as an array of the column's shape and storage type."""
    if tuple(value.shape) != (lead, *spec.shape):
        raise ContractError(
            f"Replay column {name!r} got shape {tuple(value.shape)}, expected {(lead, *spec.shape)}"
            ": rows first, then the column's own shape."
        )
    if isinstance(value, Tensor):
        value = view_array(value.detach().to(torch_dtype(spec)).cpu().contiguous())
    elif spec.dtype == "bfloat16" and value.dtype != np.uint16:
        value = view_array(torch.from_numpy(np.asarray(value, np.float32)).bfloat16())
    dtype = storage_dtype(spec)
    if value.dtype != dtype and value.dtype.kind in "fc" and dtype.kind not in "fc":
        raise ContractError(
            f"Replay column {name!r} is {dtype}, got {value.dtype}: convert it where it is made."
        )
    return value.astype(dtype, copy=False)


def zero_rows(spec: TensorSpec, rows: int) -> Array:
    """Zeros (rows, *shape) in a column's storage type."""
    return np.zeros((rows, *spec.shape), storage_dtype(spec))

"""Batched observations in memory; shared ones have no name and vanish with their last process."""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import numpy as np
from gymnasium import spaces

_ALIGN = 64


def layout(
    space: spaces.Dict, num_envs: int
) -> tuple[dict[str, tuple[int, tuple[int, ...], str]], int]:
    """Where each key's (num_envs, ...) array lies: offset, shape, dtype; and the bytes in all."""
    places, offset = {}, 0
    for key, part in space.spaces.items():
        shape = (num_envs, *part.shape)  # type: ignore[misc]
        dtype = np.dtype(part.dtype)
        places[key] = (offset, shape, dtype.str)
        bytes_ = int(np.prod(shape)) * dtype.itemsize
        offset += -(-bytes_ // _ALIGN) * _ALIGN
    return places, offset


def plain(space: spaces.Dict, num_envs: int) -> dict[str, np.ndarray]:
    """Arrays of this process."""
    return {
        key: np.zeros((num_envs, *part.shape), part.dtype)  # type: ignore[misc]
        for key, part in space.spaces.items()
    }


def anonymous_file(size: int, name: str) -> int:
    """A file descriptor of `size` bytes that no path leads to."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:
        handle, path = tempfile.mkstemp(prefix=name)
        os.unlink(path)
        descriptor = handle
    os.ftruncate(descriptor, size)
    return descriptor


def attach(descriptor: int, space: spaces.Dict, num_envs: int) -> dict[str, np.ndarray]:
    """Arrays over the shared file `descriptor`."""
    places, size = layout(space, num_envs)
    memory: Any = mmap.mmap(descriptor, max(size, 1))
    return {
        key: np.ndarray(shape, dtype, memory, offset)
        for key, (offset, shape, dtype) in places.items()
    }

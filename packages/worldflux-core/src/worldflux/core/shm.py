"""Named shared-memory segments that live until somebody unlinks them, whoever exits first.

`multiprocessing.shared_memory` is not used: up to Python 3.12 its resource tracker destroys a
segment as soon as any process that attached to it exits, and its mapping cannot outlive its handle.
Here a mapping goes when the last tensor over it goes, and a name goes only by `unlink`.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import mmap
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from worldflux.core.wire import Bytes
from worldflux.errors import StateError

_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_NAME = re.compile(_NAMESPACE.pattern + r"-[0-9a-f]{12}")


class Segment:
    """One segment of shared memory: known by name, and mapped here while `mapping` is set."""

    def __init__(self, name: str, mapping: mmap.mmap | None = None) -> None:
        self.name = name
        self.mapping = mapping

    @classmethod
    def create(cls, namespace: str, chunks: Sequence[Bytes]) -> Segment:
        """A new segment that holds `chunks` one after the other; nothing is left on failure."""
        if not _NAMESPACE.fullmatch(namespace):
            raise StateError(
                f"namespace {namespace!r} cannot name shared memory: use letters, digits, '_', '-' "
                f"and '.', at most 200, the first a letter, a digit or '_'"
            )
        nbytes = sum(len(chunk) for chunk in chunks)
        with _os_errors(f"cannot put {nbytes} bytes into shared memory"):
            name, fd = _open_new(namespace)
            try:
                (_write if sys.platform == "linux" else _write_mapped)(fd, chunks)
            except BaseException:
                _posix().shm_unlink("/" + name)
                raise
            finally:
                os.close(fd)
        return cls(name)

    @classmethod
    def attach(cls, name: str, nbytes: int) -> Segment:
        """Map an existing segment of `nbytes` bytes (a page multiple of it where the OS rounds)."""
        check_name(name)
        with _os_errors(f"cannot attach to shared memory {name!r}"):
            fd = _posix().shm_open("/" + name, os.O_RDWR, mode=0o600)
            try:
                size = os.fstat(fd).st_size
                if nbytes not in (size, size - (-nbytes % mmap.PAGESIZE)):
                    raise StateError(
                        f"shared memory {name!r} holds {size} bytes, the descriptor says {nbytes}"
                    )
                return cls(name, mmap.mmap(fd, nbytes))
            finally:
                os.close(fd)

    def view(self) -> memoryview:
        """The mapped bytes; an export that keeps the mapping from being closed."""
        assert self.mapping is not None, self.name
        return memoryview(self.mapping)

    def close(self, tensors: dict[str, Tensor]) -> None:
        """Empty `tensors` and unmap the segment; on failure change nothing."""
        if self.mapping is None:
            return
        kept = self._take_out(tensors)
        try:
            self._unmap(self.mapping)
        except BufferError:
            tensors.update({k: v if isinstance(v, Tensor) else v() for k, v in kept.items()})
            raise StateError(
                f"cannot close shared memory {self.name!r}: a caller still holds a tensor of it, "
                f"or a view of one. Delete it first, or hold a clone()"
            ) from None

    def unlink(self) -> None:
        """Remove the name; the memory goes with the last mapping. A missing name is no error."""
        missing = contextlib.suppress(FileNotFoundError)
        with _os_errors(f"cannot unlink shared memory {self.name!r}"), missing:
            _posix().shm_unlink("/" + self.name)

    def _unmap(self, mapping: mmap.mmap) -> None:
        try:
            mapping.close()
        except BufferError:
            gc.collect()  # a reference cycle may hold the last view
            mapping.close()
        self.mapping = None

    def _take_out(self, tensors: dict[str, Tensor]) -> dict[str, Tensor | Callable[[], Tensor]]:
        """Empty `tensors`; for each the way back: itself, or how to make it again if it is ours."""
        whole = torch.frombuffer(self.view(), dtype=torch.uint8)
        first = whole.data_ptr()
        kept: dict[str, Tensor | Callable[[], Tensor]] = {}
        for name, t in tensors.items():
            offset = t.data_ptr() - first
            if t.numel() == 0:  # its storage may be ours, its address tells nothing
                kept[name] = t.new_empty(t.shape)
            elif 0 <= offset < len(whole):
                kept[name] = partial(self._tensor, t.dtype, t.shape, t.stride(), offset)
            else:
                kept[name] = t
        tensors.clear()
        return kept

    def _tensor(
        self, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...], offset: int
    ) -> Tensor:
        span = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        flat = torch.frombuffer(self.view(), dtype=dtype, count=span, offset=offset)
        return flat.as_strided(shape, stride)


def check_name(name: object) -> str:
    """`name` if it can only be a segment of ours, so that nobody else's is read or unlinked."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StateError(f"{name!r:.120} is not the name of a shared-memory State")
    return name


def _open_new(namespace: str) -> tuple[str, int]:
    while True:
        name = f"{namespace}-{secrets.token_hex(6)}"
        with contextlib.suppress(FileExistsError):
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
            return name, _posix().shm_open("/" + name, flags, mode=0o600)


def _write(fd: int, chunks: Sequence[Bytes]) -> None:
    # One copy by the kernel: no zeroing, no page faults, and a full /dev/shm is an error, where
    # storing through a mapping would be a fatal SIGBUS.
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(fd, rest) :]


def _write_mapped(fd: int, chunks: Sequence[Bytes]) -> None:
    # macOS: segments cannot be written to, only mapped.
    os.ftruncate(fd, sum(len(chunk) for chunk in chunks))
    with mmap.mmap(fd, 0) as mapping:
        for chunk in chunks:
            mapping.write(chunk)


def _posix() -> Any:
    if sys.platform == "win32":
        raise StateError(
            "shared memory for States needs POSIX (Linux or macOS); send State.serialize() instead"
        )
    import _posixshmem  # type: ignore[import-not-found]  # in the standard library

    return _posixshmem


@contextlib.contextmanager
def _os_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = " It was unlinked, or its producer ran on another machine."
        elif error.errno in (errno.ENOSPC, errno.ENOMEM):
            hint = " Free or enlarge /dev/shm (containers: --shm-size)."
        raise StateError(f"{what}: {error.strerror or error}.{hint}") from error

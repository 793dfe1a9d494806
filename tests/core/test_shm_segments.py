"""How a segment comes to be, and that nothing is left when it does not."""

from __future__ import annotations

import errno
import os
import pathlib
import resource
import sys

import pytest
import torch

from worldflux.core import shm
from worldflux.core.state import State
from worldflux.errors import StateError

SHM = pathlib.Path("/dev/shm")
NAMESPACE = f"wf-test-segments-{os.getpid()}"

pytestmark = pytest.mark.skipif(not SHM.is_dir(), reason="looks into Linux's /dev/shm")


def segments() -> list[pathlib.Path]:
    return list(SHM.glob(f"{NAMESPACE}-*"))


@pytest.mark.parametrize("namespace", ["", "a/b", ".hidden", "x" * 201, "ü"])
def test_a_namespace_is_a_plain_word(namespace: str):
    with pytest.raises(StateError, match="cannot name shared memory: use letters"):
        State().to_shared_memory(namespace)


def test_a_full_shared_memory_leaves_nothing_and_says_so():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StateError, match=r"cannot put 8\d+ bytes into .*: File too large"):
            State({"a": torch.zeros(2000)}).to_shared_memory(NAMESPACE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not segments()


def test_no_space_comes_with_advice():
    advice = pytest.raises(StateError, match="x: No space left on device. Free or enlarge /dev/shm")
    with advice, shm._os_errors("x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_any_failure_while_writing_leaves_nothing():
    with pytest.raises(TypeError):
        shm.Segment.create(NAMESPACE, [b"written", "not bytes"])  # type: ignore[list-item]
    assert not segments()


def test_both_ways_of_writing_a_segment_agree():
    chunks = [b"one", b"", bytes(range(256)) * 100]
    for write in (shm._write, shm._write_mapped):
        name, fd = shm._open_new(NAMESPACE)
        write(fd, chunks)
        os.close(fd)
        assert (SHM / name).read_bytes() == b"".join(chunks)
        shm.Segment(name).unlink()


def test_tensors_elsewhere_need_permission_to_be_copied():
    state = State({"a": torch.zeros(2), "b": torch.zeros(2, device="meta")})
    with pytest.raises(StateError, match=r"\['b'\] are on meta: pass allow_copy_from_cuda=True"):
        state.to_shared_memory()


def test_windows_is_told_what_to_do_instead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(StateError, match=r"needs POSIX .* send State.serialize\(\) instead"):
        State().to_shared_memory(NAMESPACE)

"""A State of 2.9 MB: serialised, read and shared, each beside the plain way to do it."""

from __future__ import annotations

import mmap
import statistics
import time
from collections.abc import Callable

import torch
from safetensors.torch import load, save

from worldflux.core.state import State

ROUNDS = 200
Timed = Callable[[], object]


def state_of(megabytes: float) -> State:
    """A DreamerV3-like State: deterministic, stochastic and logit tensors of one batch."""
    B = int(megabytes * 1e6 / 4 / (4096 + 2 * 32 * 32))
    shapes = {"deter": (B, 4096), "stoch": (B, 32, 32), "posterior_logits": (B, 32, 32)}
    return State({name: torch.rand(shape) for name, shape in shapes.items()}, {"step": 1})


def milliseconds(*functions: Timed, rounds: int = ROUNDS) -> list[float]:
    """Median of each function; they take turns, so that a busy machine slows all of them."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(rounds + 5):
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if turn >= 5:
                found.append(time.perf_counter() - start)
    return [1e3 * statistics.median(found) for found in times]


def row(name: str, ours: Timed, reference_name: str, reference: Timed) -> dict[str, object]:
    ms, reference_ms = milliseconds(ours, reference)
    return {
        "name": name,
        "ms": ms,
        "reference": reference_name,
        "reference_ms": reference_ms,
        "ratio": ms / reference_ms,
    }


def share(state: State) -> None:
    """Write a segment and remove it, which is part of what it costs."""
    state.to_shared_memory("worldflux-bench")
    state.close_shared_memory(unlink=True)


def copy_into_new_memory(state: State) -> None:
    """Copy each tensor into pages fresh from the kernel, as those of a new segment are."""
    for tensor in state.tensors.values():
        with mmap.mmap(-1, tensor.nbytes) as pages:
            pages.write(tensor.view(-1).view(torch.uint8).numpy().data)


def rows() -> list[dict[str, object]]:
    """A clone reuses warm pages that malloc kept; a segment's pages are new, hence two rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    state = state_of(2.9)
    data, reference = state.serialize(), save(state.tensors)
    descriptor = state.clone().to_shared_memory("worldflux-bench")
    read, attach = State.deserialize, State.from_shared_memory
    saved = ("safetensors save", lambda: save(state.tensors))
    loaded = ("safetensors load", lambda: load(reference))
    fresh = ("copy into new memory", lambda: copy_into_new_memory(state))
    clone = ("clone", state.clone)
    try:
        return [
            row("serialize", state.serialize, *saved),
            row("deserialize", lambda: read(data), *loaded),
            row("deserialize, copy=False", lambda: read(data, copy=False), *loaded),
            row("shared memory, write and unlink", lambda: share(state), *fresh),
            row("shared memory, write and unlink", lambda: share(state), *clone),
            row("shared memory, attach", lambda: attach(descriptor), *clone),
            row("shared memory, attach, copy=True", lambda: attach(descriptor, copy=True), *clone),
        ]
    finally:
        State.unlink_shared_memory(descriptor)
        torch.set_num_threads(threads)

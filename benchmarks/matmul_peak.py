"""CPU time of one thread, in units of what the machine's matrix products reach.

Normalised cost = CPU milliseconds x fp32 matrix-product peak in GFLOP/s (measured beside every
case) / 1000: the cost in units of 1e9 operations at peak speed, which compares across machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch


@dataclass
class Case:
    """One timed operation; `target` and `peer` are normalised costs, if there are any."""

    name: str
    run: Callable[[], object]
    target: float | None = None
    peer: float | None = None
    bf16: bool = False


def measured_rows(make: Callable[[], Iterable[Case]]) -> list[dict[str, object]]:
    """One row per case, on one thread and with torch's generator forked."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return [measured(case) for case in make()]
    finally:
        torch.set_num_threads(threads)


def peak_gflops(size: int = 1024, repeats: int = 20) -> float:
    """fp32 matrix-product speed of one thread, the best of a few rounds."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / cpu_seconds(lambda: left @ right, repeats) / 1e9


def cpu_seconds(run: Callable[[], object], repeats: int, rounds: int = 3) -> float:
    """Process CPU seconds of one call: the best round's mean, after one warm-up call."""
    run()
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(repeats):
            run()
        best = min(best, (time.process_time() - start) / repeats)
    return best


def measured(case: Case) -> dict[str, object]:
    """Time a case, between two measurements of the peak; the better one counts."""

    def run() -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
            return case.run()

    before = peak_gflops()
    once = cpu_seconds(run, 1, rounds=1)
    seconds = cpu_seconds(run, max(1, min(50, round(0.5 / once))))
    peak = max(before, peak_gflops())
    return {
        "name": case.name,
        "cpu_ms": 1e3 * seconds,
        "normalised": seconds * peak,
        "target": case.target,
        "peer": case.peer,
        "peak_gflops": peak,
    }

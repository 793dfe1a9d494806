"""How much memory a run takes, for its rows of metrics: in MB (1e6 bytes), now and at most."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

_STATM = Path("/proc/self/statm")


def memory_row(device: torch.device) -> dict[str, float]:
    """`memory/process_mb`, its peak, and those of the GPU where `device` is one.

    The GPU's count what torch holds in tensors. Where the system does not say how much a process
    takes now (macOS), only the peak is there.
    """
    found = {"memory/process_peak_mb": _peak() / 1e6}
    if _STATM.is_file():
        pages = int(_STATM.read_text().split()[1])
        found["memory/process_mb"] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    if device.type == "cuda":
        found["memory/gpu_mb"] = torch.cuda.memory_allocated(device) / 1e6
        found["memory/gpu_peak_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    return found


def _peak() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # Linux counts in KiB

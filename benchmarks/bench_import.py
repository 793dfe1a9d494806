"""What starting costs: bare Python, `import worldflux`, and the command that lists models."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15
COMMAND = str(Path(sys.executable).with_name("worldflux"))
PROCESSES = {
    "python": [sys.executable, "-c", "pass"],
    "import worldflux": [sys.executable, "-c", "import worldflux"],
    "worldflux models": [COMMAND, "models"],
}


def milliseconds(rounds: int = ROUNDS) -> dict[str, tuple[float, float]]:
    """Median wall and CPU time of each process; they take turns, so a busy machine slows all."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in PROCESSES}
    for turn in range(rounds + 1):
        for name, command in PROCESSES.items():
            start, used = time.perf_counter(), _children()
            subprocess.run(command, check=True, capture_output=True)
            if turn:  # the first one fills the disk cache
                times[name].append((time.perf_counter() - start, _children() - used))
    return {
        name: (
            1e3 * statistics.median(w for w, _ in found),
            1e3 * statistics.median(c for _, c in found),
        )
        for name, found in times.items()
    }


def _children() -> float:
    """CPU seconds of the processes that ended so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def rows() -> list[dict[str, object]]:
    """One row per process; the target holds for what it costs beyond bare Python."""
    found = milliseconds()
    wall, cpu = found["python"]
    return [
        {
            "name": name,
            "ms": ms,
            "cpu_ms": cpu_ms,
            "beyond_python_ms": ms - wall,
            "beyond_python_cpu_ms": cpu_ms - cpu,
            "target_ms": 40.0 if name == "import worldflux" else None,
        }
        for name, (ms, cpu_ms) in found.items()
    ]


if __name__ == "__main__":
    for line in rows():
        print(line)

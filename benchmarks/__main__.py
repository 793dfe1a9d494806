"""Run every `bench_*.py` beside this file, print one table and write build/bench.json.

Each module offers `rows() -> list[dict]`; a row has a `name` and the figures it measured. Name
modules to run only those: `python -m benchmarks dreamer replay`.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import platform
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = pathlib.Path(__file__).parent


def main() -> int:
    """Run the named modules (all by default)."""
    from rich.console import Console
    from rich.table import Table

    names = sys.argv[1:] or sorted(path.stem[6:] for path in HERE.glob("bench_*.py"))
    console = Console(width=None if sys.stdout.isatty() else 160)  # a file has room
    results = {}
    for name in names:
        rows = importlib.import_module(f"benchmarks.bench_{name}").rows()
        results[name] = rows
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = Table(*columns, title=name)
        for row in rows:
            table.add_row(*(_text(row.get(column)) for column in columns))
        console.print(table)
    about = {"python": platform.python_version(), "machine": platform.processor()}
    target = HERE.parent / "build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"about": about, "results": results}, indent=1))
    console.print(f"written to {target}")
    return 0


def _text(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())

"""Examples below a command's `--help`; plugins give them the same way."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """The `epilog` of a command: what to type behind `worldflux`, one example a line."""
    return "\n\n".join(["Examples:", *(f"worldflux {line}" for line in lines)])

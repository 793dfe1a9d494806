"""Rows of text in aligned columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import typer


def show_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print `rows` under `heads`; the last column may be as long as it likes."""
    table = [tuple(heads), *map(tuple, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    for number, row in enumerate(table):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        typer.secho("  ".join(cells).rstrip(), bold=number == 0)

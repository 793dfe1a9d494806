"""What a set of recorded data holds, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from worldflux.columns import FLAGS, REWARD, row_bytes
from worldflux.core.statistics import Statistics
from worldflux_train.data.formats.base import DataFormat
from worldflux_train.data.formats.registry import formats

_SHOWN = ("shape", "dtype")


def facts(data: DataFormat, path: Path, episodes: int) -> Iterator[str]:
    """Counts, lengths, columns, and statistics of `episodes` of them, evenly spread."""
    lengths = data.lengths
    size = int(lengths.sum()) * row_bytes(data.columns) / 1e6
    held_out = "" if data.held_out is None else f", {len(data.held_out):,} held out"
    yield (
        f"{path} ({_kind(data)}): {len(data):,} episodes{held_out}, {int(lengths.sum()):,} rows, "
        f"{size:.1f} MB in memory, {_on_disk(path) / 1e6:.1f} MB on disk"
    )
    if len(data):
        yield (
            f"rows of an episode: {int(lengths.min())} to {int(lengths.max())}, "
            f"mean {float(lengths.mean()):.1f}"
        )
    for name, spec in data.columns.items():
        about = {key: value for key, value in spec.to_json().items() if key not in _SHOWN}
        more = ", ".join(f"{key}={value!r:.60}" for key, value in about.items())
        yield f"  {name}: {spec.dtype} {spec.shape}{' ' + more if more else ''}"
    if len(data):
        yield from _statistics(data, episodes)


def _statistics(data: DataFormat, most: int) -> Iterator[str]:
    chosen = np.unique(np.linspace(0, len(data) - 1, min(most, len(data))).astype(int)).tolist()
    where = "all" if len(chosen) == len(data) else f"{len(chosen)} of the"
    yield f"of {where} episodes:"
    for name in data.columns:
        if name in FLAGS:
            continue
        names = (name, *FLAGS)
        pieces = ({n: data.rows(e, n, slice(None)) for n in names} for e in chosen)
        found = Statistics.over(name, data.columns, pieces)
        mean, std = float(found.mean.mean()), float(np.sqrt((found.std**2).mean()))
        yield (
            f"  {name}: mean {mean:.4g}, deviation {std:.4g}, from {float(found.low.min()):.4g} to "
            f"{float(found.high.max()):.4g}"
        )
    if REWARD in data.columns:
        returns = [float(data.rows(e, REWARD, slice(None)).sum()) for e in chosen]
        yield f"  return of an episode: {min(returns):.4g} to {max(returns):.4g}, " \
              f"mean {float(np.mean(returns)):.4g}"  # fmt: skip
    ended = [bool(data.rows(e, FLAGS[2], slice(None))[-1]) for e in chosen]
    yield f"  terminated: {sum(ended)} of {len(ended)}"


def _kind(data: DataFormat) -> str:
    where = f"{type(data).__module__}:{type(data).__name__}"
    return next((name for name, known in formats().items() if known == where), where)


def _on_disk(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

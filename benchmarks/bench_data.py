"""Reading 16 x 64 frames of 64x64x3 from recorded data, by format, beside raw loops.

Raw loops read such windows of the same frames with the library alone: a numpy memmap, h5py, zarr
(chunks of 64 frames) and PyAV (from the keyframe before). 100k steps, or WORLDFLUX_BENCH_STEPS.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import h5py
import numpy as np
import torch
import zarr

from worldflux.columns import step_columns
from worldflux.specs import TensorSpec
from worldflux.training import Phase
from worldflux_train.config import DataConfig
from worldflux_train.data import open_data
from worldflux_train.data.converting import convert
from worldflux_train.data.formats import open_recorded

STEPS = int(os.environ.get("WORLDFLUX_BENCH_STEPS", "100000"))
ROWS, BATCH, LENGTH, IMAGE = 1_000, 16, 64, (3, 64, 64)
REPEATS = 15
COLUMNS = step_columns({"image": TensorSpec(IMAGE, "uint8", low=0, high=255)})
WRITTEN = {"episodes": "e", "hdf5": "h.hdf5", "npz": "n", "video": "v"}
Read = Callable[[], object]


def frames(number: int) -> np.ndarray:
    """A moving pattern with a little noise (ROWS, C, Y, X)."""
    random = np.random.default_rng(number)
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    shift = np.arange(ROWS)[:, None, None] + number
    waves = [127 + 100 * np.sin((a * x + b * y + shift) / 9) for a, b in ((1, 0), (0, 1), (1, 1))]
    noise = random.integers(0, 8, (ROWS, 3, 64, 64))
    return (np.stack(waves, 1) + noise).astype(np.uint8)


def recorded(folder: Path) -> list[Path]:
    """The same episodes as a plain array, as `episodes`, and in every other format."""
    plain = np.lib.format.open_memmap(
        folder / "plain.npy", "w+", np.uint8, (STEPS // ROWS, ROWS, *IMAGE)
    )
    for number in range(len(plain)):
        plain[number] = frames(number)
    plain.flush()
    source = open_recorded(folder / "plain.npy")
    paths = []
    for kind, name in WRITTEN.items():
        convert(source, folder / name, kind)
        paths.append(folder / name)
    chunks = (1, LENGTH, *IMAGE)
    stored = zarr.create_array(folder / "z.zarr", shape=plain.shape, chunks=chunks, dtype="uint8")
    for number in range(len(plain)):
        stored[number] = plain[number]
    return paths


def rows() -> list[dict[str, object]]:
    """A row per format and per raw loop; each is timed in turns with the memmap."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recorded(folder)
        plain = np.load(folder / "plain.npy", mmap_mode="r")
        array = _windows(lambda e, t: plain[e, t : t + LENGTH])
        made = []
        for kind, where in WRITTEN.items():
            made.append(_row(f"ours: {kind}", _ours(folder / where), array, folder / where))
        with h5py.File(folder / "raw.h5", "w") as file:
            file["x"] = plain
        with h5py.File(folder / "raw.h5", "r") as file:
            data = file["x"]
            read = _windows(lambda e, t: data[e, t : t + LENGTH])
            made.append(_row("raw: h5py", read, array, folder / "raw.h5"))
        stored = zarr.open_array(folder / "z.zarr", mode="r")
        read = _windows(lambda e, t: np.asarray(stored[e, t : t + LENGTH]))
        made.append(_row("raw: zarr", read, array, folder / "z.zarr"))
        files = sorted((folder / "v").glob("*.mp4"))
        read = _windows(lambda e, t: _decoded(files[e], t))
        made.append(_row("raw: PyAV", read, array, folder / "v"))
        made.append(_row("raw: numpy memmap", array, array, folder / "plain.npy"))
    return made


def _ours(path: Path) -> Read:
    source = open_data(DataConfig(path=str(path)), 0).source(COLUMNS, torch.device("cpu"))
    phase = Phase("read", BATCH, LENGTH, boundary="within")
    updates: Iterator[int] = itertools.count()
    return lambda: source.read(source.choose(phase, next(updates)))


def _windows(read: Callable[[int, int], np.ndarray]) -> Read:
    """Sixteen windows at random places, into one buffer."""
    random = np.random.default_rng(0)

    def batch() -> None:
        buffer = np.empty((BATCH, LENGTH, *IMAGE), np.uint8)
        for b in range(BATCH):
            episode, start = random.integers(STEPS // ROWS), random.integers(ROWS - LENGTH)
            buffer[b] = read(int(episode), int(start))

    return batch


def _decoded(file: Path, first: int) -> np.ndarray:
    found: list[np.ndarray] = []
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate * stream.time_base)
        container.seek(int(first / rate), stream=stream)
        for frame in container.decode(stream):
            if round(frame.pts * rate) >= first:
                found.append(frame.to_ndarray(format="rgb24"))
                if len(found) == LENGTH:
                    break
    return np.stack(found).transpose(0, 3, 1, 2)


def _row(name: str, read: Read, array: Read, path: Path) -> dict[str, object]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for function, taken in zip((read, array), times, strict=True):
            began = time.perf_counter()
            function()
            taken.append(time.perf_counter() - began)
    ours, plain = (float(np.median(taken)) for taken in times)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    size = sum(file.stat().st_size for file in files)
    return {
        "name": name, "frames/s": BATCH * LENGTH / ours, "bytes": size, "ms": ours * 1e3,
        "memmap_ms": plain * 1e3, "ratio": ours / plain,
    }  # fmt: skip

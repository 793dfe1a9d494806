"""Sampling 16 x 64 frames from 100k steps, beside the bare copy of the same frames."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np

from worldflux.columns import step_columns
from worldflux.specs import TensorSpec
from worldflux.training import Phase
from worldflux_train.replay import Replay

STEPS, BATCH, LENGTH = 100_000, 16, 64
IMAGE = (3, 64, 64)


def filled() -> Replay:
    """A replay of 100k steps of images with DreamerV3's other columns, in episodes of 1000."""
    columns = step_columns(
        {"image": TensorSpec(IMAGE, "uint8")},
        TensorSpec((), "int64", n=6),
        {"deter": TensorSpec((512,), "bfloat16"), "stoch": TensorSpec((32,), "uint8")},
    )
    replay = Replay(columns, capacity=STEPS)
    generator = np.random.default_rng(0)
    for t in range(STEPS):
        replay.append(
            {
                "obs.image": generator.integers(0, 255, (1, *IMAGE), np.uint8),
                "action": np.array([t % 6]),
                "reward": np.zeros(1, np.float32),
                "is_first": np.array([t % 1000 == 0]),
                "is_last": np.array([t % 1000 == 999]),
                "is_terminal": np.array([False]),
                "stored.deter": np.zeros((1, 512), np.float32),
                "stored.stoch": np.zeros((1, 32), np.uint8),
            }
        )
    return replay


def rows() -> list[dict[str, object]]:
    """One row per way of sampling: CPU milliseconds, and those of the copy in the same run."""
    replay = filled()
    # The plain copy is of one array that holds the frames and nothing else.
    frames = np.random.default_rng(1).integers(0, 255, (STEPS, *IMAGE), np.uint8)
    generator = np.random.default_rng(2)
    made = []
    for name, context, boundary in (
        ("replay sample 16x64", 0, "cross"),
        ("replay sample 16x64, 1 context step", 1, "cross"),
        ("replay sample 16x64, one episode", 0, "within"),
    ):
        total = LENGTH + context
        buffer = np.empty((BATCH, total, *IMAGE), np.uint8)

        def copy(total: int = total, buffer: np.ndarray = buffer) -> None:
            starts = generator.integers(STEPS - total, size=BATCH).tolist()
            for b, start in enumerate(starts):
                buffer[b] = frames[start : start + total]

        phase = Phase("sample", BATCH, LENGTH, context=context, boundary=boundary)
        updates = itertools.count()

        def sample(phase: Phase = phase, updates: Iterator[int] = updates) -> None:
            replay.read(replay.choose(phase, next(updates)))

        ours, reference = _medians(sample, copy)
        made.append(
            {"name": name, "ms": ours, "reference_ms": reference, "ratio": ours / reference}
        )
    return made


def _medians(first: Callable[[], None], second: Callable[[], None]) -> tuple[float, float]:
    # In turns, so that what else the machine does hits both alike.
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(200):
        for call, taken in zip((first, second), times, strict=True):
            begin = time.process_time()
            call()
            taken.append(time.process_time() - begin)
    ours, reference = (float(np.median(taken[20:])) * 1000 for taken in times)
    return ours, reference


if __name__ == "__main__":
    for row in rows():
        print(row)

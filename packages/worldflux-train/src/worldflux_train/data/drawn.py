"""The set of drawn shapes on disk, for trying and checking image families."""

from __future__ import annotations

from pathlib import Path

from worldflux.atomic import new_folder
from worldflux.shapes import CLASSES, draw_shapes
from worldflux_train.data.formats.cifar import write_cifar


def write_shapes(
    folder: str | Path, images: int = 10_000, held_out: int = 1_000, *, seed: int = 0,
    classes: int = len(CLASSES),
) -> Path:  # fmt: skip
    """Write drawn shapes 32x32 in the layout of CIFAR-10, with `held_out` images for validation.

    The same arguments write the same bytes; `folder` must be new.
    """
    path, names = Path(folder), list(CLASSES[:classes])
    with new_folder(path) as draft:
        for name, count, part in (("data_batch_1.bin", images, 0), ("test_batch.bin", held_out, 1)):
            if count:
                drawn = draw_shapes(count, 2 * seed + part, classes=classes)
                write_cifar(draft, name, *drawn, names)
    return path

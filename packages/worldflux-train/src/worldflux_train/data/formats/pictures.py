"""Image files: which they are, and reading one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from worldflux.columns import FLAGS, OBS
from worldflux.errors import StorageError
from worldflux.specs import TensorSpec

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
IMAGE = f"{OBS}image"


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def image_files(folder: Path) -> Iterator[Path]:
    """The image files in a folder and below, sorted within each folder."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            yield from image_files(entry)
        elif is_image(entry):
            yield entry


def read_image(path: Path, channels: int = 3) -> NDArray[np.uint8]:
    """An image file as uint8 (C, Y, X): colours, or grey with one channel."""
    try:
        with Pillow.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB" if channels == 3 else "L"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise StorageError(f"{path} cannot be read as an image: {error}.") from error
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    found: NDArray[np.uint8] = pixels.transpose(2, 0, 1)
    return found


def image_columns(shape: tuple[int, ...], labels: tuple[str, ...] | None) -> dict[str, TensorSpec]:
    """The columns of images (C, Y, X), each an episode of one row; with a label, if there are."""
    columns = {IMAGE: TensorSpec(shape, "uint8", low=0, high=255)}
    columns |= {name: TensorSpec((), "bool") for name in FLAGS}
    if labels is not None:
        columns[LABEL] = TensorSpec((), "int64", n=len(labels), labels=labels)
    return columns


LABEL = "extra.label"

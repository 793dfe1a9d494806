"""Image files: which they are, and reading one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from worldflux.columns import FLAGS, OBS, Columns
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


def only_picture(columns: Columns) -> str:
    """The column of images, of data that is written as pictures; `StorageError` without one."""
    found = [name for name, spec in columns.items() if name.startswith(OBS) and spec.image]
    if len(found) != 1 or columns[found[0]].shape[0] not in (1, 3):
        raise StorageError(
            f"Written as pictures is data with one observation of grey or coloured images, this "
            f"has {', '.join(found) or 'none'}. Convert it to episodes, hdf5 or npz."
        )
    return found[0]


def write_image(path: Path, image: NDArray[np.generic]) -> None:
    """Write an image (C, Y, X) as a PNG."""
    pixels = np.asarray(image, np.uint8)
    pixels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    Pillow.fromarray(np.ascontiguousarray(pixels)).save(path, "png")


def image_columns(shape: tuple[int, ...], labels: tuple[str, ...] | None) -> dict[str, TensorSpec]:
    """The columns of images (C, Y, X), each an episode of one row; with a label, if there are."""
    columns = {IMAGE: TensorSpec(shape, "uint8", low=0, high=255)}
    columns |= {name: TensorSpec((), "bool") for name in FLAGS}
    if labels is not None:
        columns[LABEL] = TensorSpec((), "int64", n=len(labels), labels=labels)
    return columns


LABEL = "extra.label"

"""A contact sheet: small pictures of many episodes on one page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worldflux.atomic import make_folder
from worldflux.columns import OBS, Columns
from worldflux.errors import StorageError
from worldflux.recorded import Recorded

_SIDE, _GAP, _ROWS, _COLUMNS = 96, 4, 8, 8


def contact_sheet(data: Recorded, path: Path) -> Path:
    """Write a PNG: a row for each of eight episodes with eight of its frames; of images 64."""
    key = picture_column(data.columns)
    if key is None:
        raise StorageError("These data hold no images to show.")
    still = int(data.lengths.max()) == 1
    shown = _spread(len(data), _ROWS * _COLUMNS if still else _ROWS)
    rows = []
    if still:
        tiles = [_tile(data.rows(number, key, slice(0, 1))[0]) for number in shown]
        rows = [tiles[i : i + _COLUMNS] for i in range(0, len(tiles), _COLUMNS)]
    else:
        for number in shown:
            frames = _spread(int(data.lengths[number]), _COLUMNS)
            rows.append([_tile(data.rows(number, key, slice(t, t + 1))[0]) for t in frames])
    make_folder(path.parent)
    draft = path.with_name(f".{path.name}.tmp")
    Image.fromarray(_page(rows)).save(draft, "png")
    draft.replace(path)
    return path


def picture_column(columns: Columns) -> str | None:
    """The first column of images in the observations."""
    found = [name for name, spec in columns.items() if name.startswith(OBS) and spec.image]
    return found[0] if found else None


def _spread(count: int, most: int) -> list[int]:
    """At most so many numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _tile(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """An image (C, Y, X) as (side, side, 3), whole and in the middle."""
    channels = image[-3:] if image.shape[0] >= 3 else image[:1].repeat(3, 0)
    drawn = Image.fromarray(np.ascontiguousarray(channels.transpose(1, 2, 0)).astype(np.uint8))
    factor = _SIDE / max(drawn.size)
    size = (max(1, round(drawn.width * factor)), max(1, round(drawn.height * factor)))
    kind = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    tile = Image.new("RGB", (_SIDE, _SIDE), "white")
    tile.paste(drawn.resize(size, kind), ((_SIDE - size[0]) // 2, (_SIDE - size[1]) // 2))
    return np.asarray(tile)


def _page(rows: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    step = _SIDE + _GAP
    page = np.full((len(rows) * step + _GAP, max(map(len, rows)) * step + _GAP, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            top, left = _GAP + y * step, _GAP + x * step
            page[top : top + _SIDE, left : left + _SIDE] = tile
    return page

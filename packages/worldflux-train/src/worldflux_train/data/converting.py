"""Recorded data from one format to another; nothing half-written is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from worldflux.columns import Columns
from worldflux.episodes import Episode
from worldflux.errors import ConfigError, StorageError
from worldflux.recorded import Recorded
from worldflux_train.data.augment import Augmentations
from worldflux_train.data.formats.registry import format_class, formats

Tell = Callable[[int], None]


def convert(
    data: Recorded,
    to: Path,
    kind: str,
    numbers: Sequence[int] | None = None,
    *,
    change: Augmentations | None = None,
    tell: Tell = lambda done: None,
) -> int:
    """Write episodes of `data` to `to` in the format `kind`; how many.

    `change` is done to images. What is written appears whole or not at all.
    """
    writer = getattr(format_class(kind), "write_to", None)
    if writer is None:
        can = [name for name in formats() if hasattr(format_class(name), "write_to")]
        raise ConfigError(f"{kind!r} cannot be written, only read. Written are: {', '.join(can)}.")
    if to.exists():
        raise StorageError(f"{to} exists already. Choose a new name.")
    chosen = range(len(data)) if numbers is None else numbers
    columns = data.columns if change is None else change.columns(data.columns)
    draft = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        writer(draft, columns, _each(data, chosen, columns, change, tell))
        draft.replace(to)
    except BaseException:
        shutil.rmtree(draft) if draft.is_dir() else draft.unlink(missing_ok=True)
        raise
    return len(chosen)


def _each(
    data: Recorded,
    numbers: Sequence[int],
    columns: Columns,
    change: Augmentations | None,
    tell: Tell,
) -> Iterator[tuple[Episode, dict[str, Any]]]:
    for done, number in enumerate(numbers, 1):
        episode = data[number]
        if change is not None:
            episode = {name: change.apply(name, value, (0,)) for name, value in episode.items()}
        about = {key: value for key, value in data.about(number).items() if key != "file"}
        yield {name: episode[name] for name in columns}, about
        tell(done)

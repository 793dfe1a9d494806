"""A replay on disk: blocks of rows named by their sha256, and a JSON file that lists them.

Blocks that did not change since the last save keep their names, so a checkpoint of a large replay
writes only what is new. Small replays are written whole into the checkpoint itself.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import numpy as safetensors

from worldflux.atomic import make_folder, read_json, write_file, write_json
from worldflux.columns import STORED, Columns, row_bytes, to_json
from worldflux.errors import StorageError
from worldflux_train.replay.lanes import Lanes
from worldflux_train.replay.slices import Bools, Ints
from worldflux_train.replay.storage import Storage
from worldflux_train.replay.values import Array

logger = logging.getLogger(__name__)

FILE = "replay.json"
VERSION = 2
_BLOCK_BYTES = 2**24
_SUFFIX = ".safetensors"


class Snapshot:
    """Which blocks of a replay are already in the shared folder, and how to write the others.

    A block is `block_rows` places of one lane. Recorded columns never change, stored latents are
    written back all the time: they are separate blocks.
    """

    def __init__(self, columns: Columns, lanes: Lanes) -> None:
        self.columns, self.lanes = columns, lanes
        stored = [name for name in columns if name.startswith(STORED)]
        recorded = [name for name in columns if name not in stored]
        self.groups = {"recorded": recorded} | ({"stored": stored} if stored else {})
        self.block_rows = min(lanes.size, max(1, _BLOCK_BYTES // row_bytes(columns)))
        shape = (lanes.lanes, -(-lanes.size // self.block_rows))
        self.clean: dict[str, Bools] = {group: np.zeros(shape, bool) for group in self.groups}
        self.names: dict[str, list[list[str]]] = {
            group: [[""] * shape[1] for _ in range(shape[0])] for group in self.groups
        }
        self.shared: Path | None = None

    def touch(self, rows: Ints | None, groups: Iterable[str] | None = None) -> None:
        """Note that rows changed (None: any), in all or the given groups of columns."""
        for group in self.groups if groups is None else groups:
            if rows is None:
                self.clean[group][:] = False
            else:
                lane, place = np.divmod(rows, self.lanes.size)
                self.clean[group][lane, place // self.block_rows] = False

    def save(
        self, path: Path, shared: Path | None, storage: Storage, about: dict[str, Any]
    ) -> None:
        """Write the blocks (into `shared`, or beside the JSON file) and then the JSON file."""
        folder = path / "blocks" if shared is None else shared.resolve()
        make_folder(path)
        make_folder(folder)
        if shared is not None and self.shared != folder:
            self.touch(None)
            self.shared = folder
        blocks: dict[str, list[list[str]]] = {
            group: [[] for _ in range(self.lanes.lanes)] for group in self.groups
        }
        for group, lane, block, first, last in self._blocks():
            name = self.names[group][lane][block]
            kept = shared is not None and bool(self.clean[group][lane, block])
            if not kept or not (folder / name).is_file():
                name = _write(folder, storage.block(first, last, self.groups[group]))
            blocks[group][lane].append(name)
            if shared is not None:
                self.names[group][lane][block] = name
                self.clean[group][lane, block] = True
        write_json(path / FILE, self._shape() | about | {
            "shared": shared is not None, "blocks": blocks,
            "count": self.lanes.count.tolist(), "ended": self.lanes.ended.tolist(),
            "before": self.lanes.oldest_position.tolist(),
        })  # fmt: skip

    def load(self, path: Path, shared: Path | None, storage: Storage) -> dict[str, Any]:
        """Read everything back after checking it; the JSON object that was saved."""
        saved = read_json(path / FILE)
        self._check(path / FILE, saved)
        folder = path / "blocks"
        if saved["shared"]:
            if shared is None:
                raise StorageError(
                    f"{path / FILE} keeps its rows in a shared folder. Give that folder as shared=."
                )
            folder = shared.resolve()
        self.lanes.count = np.array(saved["count"], np.int64)
        self.touch(None)
        for group, lane, block, first, _ in self._blocks():
            name = saved["blocks"][group][lane][block]
            storage.put_block(first, _read(folder / name))
            if saved["shared"]:
                self.names[group][lane][block] = name
                self.clean[group][lane, block] = True
        self.shared = folder if saved["shared"] else None
        flags = storage.block(0, self.lanes.position.size, ["is_first"])["is_first"]
        self.lanes.restore(
            self.lanes.count,
            np.array(saved["ended"], bool),
            flags.reshape(self.lanes.position.shape).astype(bool),
            np.array(saved["before"], np.int64),
        )
        return saved

    def _shape(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "columns": to_json(self.columns),
            "lanes": self.lanes.lanes,
            "size": self.lanes.size,
            "block_rows": self.block_rows,
        }

    def _check(self, file: Path, saved: dict[str, Any]) -> None:
        for key, expected in self._shape().items():
            if saved.get(key) != expected:
                raise StorageError(
                    f"{file} was saved with {key} {saved.get(key)}, this replay has {expected}. "
                    "Load it with the configuration it was saved with."
                )

    def _blocks(self) -> Iterator[tuple[str, int, int, int, int]]:
        # (group, lane, block, first row, row after the last) of all blocks that hold rows.
        for lane, filled in enumerate(self.lanes.filled.tolist()):
            base = lane * self.lanes.size
            for block, first in enumerate(range(0, filled, self.block_rows)):
                last = min(first + self.block_rows, filled)
                for group in self.groups:
                    yield group, lane, block, base + first, base + last


def prune(shared: Path, keep: Iterable[Path]) -> None:
    """Delete blocks that none of the `keep` folders lists, and drafts a killed process left.

    If one of the lists cannot be read, nothing is deleted: its blocks are not known.
    """
    used: set[str] = set()
    for path in keep:
        try:
            blocks = read_json(path / FILE)["blocks"]
        except StorageError as error:
            logger.warning("no old replay blocks are deleted: %s", error)
            return
        used.update(name for group in blocks.values() for lane in group for name in lane)
    for file in shared.glob("*"):
        draft = file.name.startswith(".") and file.name.endswith(".tmp")
        if draft or (file.name.endswith(_SUFFIX) and file.name not in used):
            file.unlink()


def _write(folder: Path, arrays: dict[str, Array]) -> str:
    data = safetensors.save({name: np.ascontiguousarray(item) for name, item in arrays.items()})
    name = hashlib.sha256(data).hexdigest() + _SUFFIX
    if not (folder / name).is_file():
        write_file(folder / name, data)
    return name


def _read(file: Path) -> dict[str, Array]:
    advice = "Restore it from a copy, or resume from a checkpoint that does not use it."
    try:
        data = file.read_bytes()
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror or error}. {advice}") from error
    if hashlib.sha256(data).hexdigest() + _SUFFIX != file.name:
        raise StorageError(f"{file} is damaged: its content does not match its name. {advice}")
    return dict(safetensors.load(data))

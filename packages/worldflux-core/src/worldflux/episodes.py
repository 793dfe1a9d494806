"""Episodes on disk: append-only, memory-mapped columns. No torch, no pickle.

A folder holds `episodes.json` (the columns), one raw file per column, and `index.jsonl` with a
line per finished episode. An episode counts once its line is there, so a killed writer loses the
unfinished one and no other. An episode of T actions has T+1 rows in the convention of
`core.batch`: its last row is the terminal observation with a zero action.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from worldflux.atomic import make_folder, read_json, write_json
from worldflux.columns import (
    ACTION,
    FLAGS,
    REWARD,
    Columns,
    Rows,
    check_names,
    from_json,
    storage_dtype,
    to_json,
)
from worldflux.errors import ContractError, StorageError
from worldflux.specs import TensorSpec

ABOUT = "episodes.json"
INDEX = "index.jsonl"
VERSION = 1

Episode = dict[str, NDArray[np.generic]]


class EpisodeWriter:
    """Appends whole episodes to a folder, a new one or one written before. One at a time."""

    def __init__(self, folder: str | Path, columns: Columns) -> None:
        self.folder, self.columns = Path(folder), dict(columns)
        if (self.folder / ABOUT).is_file():
            found = Episodes(self.folder)
            _check_same(self.folder, found.columns, self.columns)
            self._count, self._rows = len(found), int(found.lengths.sum())
            index = self.folder / INDEX
            self._index_bytes = index.read_bytes().rfind(b"\n") + 1 if index.is_file() else 0
        else:
            make_folder(self.folder)
            about = {"version": VERSION, "columns": to_json(self.columns)}
            write_json(self.folder / ABOUT, about)
            self._count, self._rows, self._index_bytes = 0, 0, 0

    def write(self, episode: Mapping[str, Any], **about: Any) -> int:
        """Append one finished episode and JSON-able facts about it; its number."""
        check_episode(self.columns, episode)
        facts = _plain(about)
        length = rows_of(episode)
        sums = {}
        for name, spec in self.columns.items():
            data = np.ascontiguousarray(episode[name], storage_dtype(spec)).tobytes()
            self._append(_column(self.folder, name), self._rows * _width(spec), data)
            sums[name] = zlib.crc32(data)
        entry = {"rows": length, "crc32": sums, "about": facts}
        line = (json.dumps(entry | {"check": _check(entry)}) + "\n").encode()
        self._append(self.folder / INDEX, self._index_bytes, line)
        self._index_bytes += len(line)
        self._rows += length
        self._count += 1
        return self._count - 1

    def _append(self, path: Path, at: int, data: bytes) -> None:
        # What lies beyond `at` belongs to an episode that was never finished.
        try:
            with path.open("r+b" if path.exists() else "w+b") as stream:
                stream.truncate(at)
                stream.seek(at)
                stream.write(data)
        except OSError as error:
            raise StorageError(
                f"{path} could not be written: {error.strerror or error}. The episodes before "
                "this one are intact; free space and write it again."
            ) from error


class EpisodeRecorder:
    """Collects the rows of several environments and writes each episode when it ends."""

    def __init__(self, writer: EpisodeWriter, num_envs: int) -> None:
        self.writer = writer
        self._running: list[list[dict[str, Any]]] = [[] for _ in range(num_envs)]

    def append(self, rows: Mapping[str, Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Take one step of each environment (num_envs, ...), as the replay does.

        Columns the writer does not keep are left out. An episode cut off by the next one ends
        with its newest step.
        """
        kept = {name: rows[name] for name in self.writer.columns if name in rows}
        check_names(self.writer.columns, kept, "EpisodeRecorder.append")
        for env, running in enumerate(self._running):
            if mask is not None and not mask[env]:
                continue
            step = {name: np.array(value[env]) for name, value in kept.items()}
            if step["is_first"] and running:
                self._finish(running)
            running.append(step)
            if step["is_last"]:
                self._finish(running)

    def finish(self) -> None:
        """End every running episode with its newest step, which then is cut off by a limit.

        An episode of a single step, in which nothing was done, is left out.
        """
        for running in self._running:
            if len(running) > 1:
                self._finish(running)
            running.clear()

    def _finish(self, running: list[dict[str, Any]]) -> None:
        running[-1]["is_last"] = np.array(True)
        if ACTION in running[-1]:
            running[-1][ACTION] = np.zeros_like(running[-1][ACTION])
        self.writer.write({name: np.stack([step[name] for step in running]) for name in running[0]})
        running.clear()


class Episodes(Sequence[Episode]):
    """The finished episodes of a folder, as read-only views of its memory-mapped columns."""

    def __init__(self, folder: str | Path, verify: bool = True) -> None:
        """`verify` compares each episode with its checksums when it is first read."""
        self.folder = Path(folder)
        if not (self.folder / ABOUT).is_file():
            raise StorageError(
                f"{self.folder} holds no episodes: it has no {ABOUT}. Give the folder an "
                "EpisodeWriter wrote."
            )
        about = read_json(self.folder / ABOUT)
        if about.get("version") != VERSION:
            raise StorageError(
                f"{self.folder / ABOUT} has version {about.get('version')}, this WorldFlux reads "
                f"{VERSION}. Read it with the WorldFlux that wrote it."
            )
        self.columns = _columns(self.folder, about)
        self._entries = list(_entries(self.folder / INDEX))
        self.lengths = np.array([entry["rows"] for entry in self._entries], np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._arrays = {name: self._map(name) for name in self.columns}
        self._checked = np.full(len(self._entries), not verify)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, number: int) -> Episode: ...
    @overload
    def __getitem__(self, number: slice) -> list[Episode]: ...
    def __getitem__(self, number: int | slice) -> Episode | list[Episode]:
        """One episode: column -> (T+1, ...)."""
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        start = self._starts[number]
        rows = {name: array[start : start + self.lengths[number]]
                for name, array in self._arrays.items()}  # fmt: skip
        if not self._checked[number]:
            self._verify(number, rows)
        return rows

    def rows(self, number: int, column: str, index: slice) -> NDArray[np.generic]:
        """Some rows (K, ...) of one column of an episode."""
        number = range(len(self))[number]
        if not self._checked[number]:
            return self[number][column][index]
        start, length = int(self._starts[number]), int(self.lengths[number])
        rows: NDArray[np.generic] = self._arrays[column][start : start + length][index]
        return rows

    def about(self, number: int) -> dict[str, Any]:
        """What the writer said about an episode."""
        return dict(self._entries[number]["about"])

    def _verify(self, number: int, rows: Rows) -> None:
        for name, value in rows.items():
            if zlib.crc32(np.ascontiguousarray(value).data) != self._entries[number]["crc32"][name]:
                raise StorageError(
                    f"{_column(self.folder, name)} is damaged in episode {number}: its checksum "
                    "does not match. Restore the file from a copy, or leave that episode out."
                )
        self._checked[number] = True

    def _map(self, name: str) -> NDArray[np.generic]:
        spec, path = self.columns[name], _column(self.folder, name)
        rows = int(self.lengths.sum())
        shape, dtype = (rows, *spec.shape), storage_dtype(spec)
        size = path.stat().st_size if path.is_file() else 0
        if size < rows * _width(spec):
            whole = int((np.cumsum(self.lengths) * _width(spec) <= size).sum())
            raise StorageError(
                f"{path} is damaged: it has {size} bytes of {rows * _width(spec)}. Restore it from "
                f"a copy, or keep the {whole} episodes that are whole: delete the lines of "
                f"{INDEX} after line {whole}."
            )
        if not rows * _width(spec):
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(path, dtype, "r", shape=shape))


def rows_of(episode: Mapping[str, Any]) -> int:
    """T+1, the rows of an episode."""
    if FLAGS[0] not in episode:
        raise ContractError(
            f"An episode has no {FLAGS[0]}, only {', '.join(episode)}: every one has the flags "
            f"{', '.join(FLAGS)}."
        )
    return len(episode[FLAGS[0]])


def check_episode(columns: Columns, episode: Mapping[str, Any]) -> None:
    """Raise `ContractError` unless this is one whole episode in the one time convention."""
    check_names(columns, episode, "An episode")
    length = rows_of(episode)
    for name, spec in columns.items():
        shape, expected = np.shape(episode[name]), (length, *spec.shape)
        if shape != expected:
            raise ContractError(
                f"Episode column {name!r} has shape {shape}, expected {expected}: rows first, then "
                "the column's own shape."
            )
    first, last, terminal = (np.asarray(episode[flag], bool) for flag in FLAGS)
    problem = None
    if not length or not first[0] or first[1:].any():
        problem = "is_first must be True at its first row and nowhere else"
    elif not last[-1] or last[:-1].any():
        problem = "is_last must be True at its last row and nowhere else"
    elif (terminal & ~last).any():
        problem = "is_terminal may be True at its last row only"
    elif REWARD in columns and episode[REWARD][0] != 0:
        problem = "the reward of its first row must be 0, nothing preceded it"
    elif ACTION in columns and np.any(episode[ACTION][-1]):
        problem = "the action of its last row must be zero, none was taken"
    if problem:
        raise ContractError(f"An episode of {length} rows breaks the time convention: {problem}.")


def _columns(folder: Path, about: Mapping[str, Any]) -> dict[str, TensorSpec]:
    try:
        return from_json(about["columns"])
    except (KeyError, AttributeError, ContractError) as error:
        raise StorageError(
            f"{folder / ABOUT} is damaged: it does not describe its columns ({error}). Restore it "
            "from a copy."
        ) from error


def _check_same(folder: Path, found: Columns, given: Columns) -> None:
    """Raise unless both are the same columns; names of choices do not matter."""
    if set(found) != set(given):
        raise StorageError(
            f"{folder} holds episodes with the columns {', '.join(found)}, these have "
            f"{', '.join(given)}. Choose another folder."
        )
    for name, spec in found.items():
        if replace(spec, labels=None) != replace(given[name], labels=None):
            raise StorageError(
                f"{folder} holds episodes whose column {name!r} is {spec.to_json()}, these have "
                f"{given[name].to_json()}. Choose another folder."
            )


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline was cut off
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            whole = entry.pop("check") == _check(entry)
        except (ValueError, AttributeError, KeyError):
            whole = False
        if not whole:
            raise StorageError(
                f"{path} line {number} is damaged. Restore the file from a copy, or delete that "
                f"line and those after it to keep the {number - 1} episodes before."
            )
        yield entry


def _check(entry: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry, sort_keys=True).encode())


def _plain(about: Mapping[str, Any]) -> Any:
    try:
        return json.loads(json.dumps(about))
    except (TypeError, ValueError) as error:
        raise ContractError(
            f"Facts about an episode must be plain JSON: {error}. Give numbers, text, lists, dicts."
        ) from error


def _column(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.bin"


def _width(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * storage_dtype(spec).itemsize

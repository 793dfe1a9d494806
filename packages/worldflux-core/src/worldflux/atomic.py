"""Files and folders that appear whole or not at all, and the digests that prove they still are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

from worldflux.errors import StorageError

MANIFEST = "manifest.json"
_MOST_NAME = 1_000


def write_file(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, flush it to the disk, then rename it to `path`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):  # a read-only file system refuses that too
            draft.unlink()
        raise not_written(path, error) from error
    _sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make the folder and those above it, unless they are there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(path, error) from error


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling to fill; it becomes `path` on leaving, or vanishes on an exception."""
    if path.exists():
        raise StorageError(f"{path} already exists. Remove it or choose another name.")
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        for file in _files(draft):
            _sync(file)
        draft.replace(path)
    except StorageError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise not_written(path, error) from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def seal(folder: Path, **about: Any) -> None:
    """Write the folder's manifest: `about`, and size and sha256 of every file in it."""
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": digest(file)}
        for file in _files(folder)
        if file.name != MANIFEST
    }
    write_json(folder / MANIFEST, {**about, "files": files})


def check_seal(folder: Path, required: Collection[str] = ()) -> dict[str, Any]:
    """The manifest of a sealed folder, after every file has been compared with it.

    `required` are names that the manifest must list. `StorageError` for anything else than
    regular files inside the folder: nothing is waited for, and nothing outside it is read.
    """
    _require_inside(folder, MANIFEST)
    manifest = read_json(folder / MANIFEST)
    entries = _entries(folder, manifest)
    for name in required:
        if name not in entries:
            raise StorageError(
                f"{folder / MANIFEST} does not list {name}. Save the folder again, or get an "
                "undamaged copy."
            )
    for name, (size, sha256) in entries.items():
        _require_inside(folder, name)
        check_file(folder / name, size, sha256)
    return manifest


def check_file(path: Path, size: int, sha256: str) -> None:
    """Raise `StorageError` unless the file is there with that size and digest."""
    restore = "Restore it, or use an older copy of its folder."
    if not os.path.lexists(path):
        raise StorageError(f"{path} is missing. {restore}")
    with opened(path) as stream:
        found = os.fstat(stream.fileno()).st_size
        if found != size:
            raise StorageError(
                f"{path} is damaged: it has {found} bytes, {size} were written. {restore}"
            )
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            raise StorageError(
                f"{path} is damaged: its content does not match its sha256. {restore}"
            )


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A regular file to read from; a pipe or device in its place is refused, never waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise StorageError(f"{path} is not a regular file. Restore it from a copy.")
            yield stream
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_text(path: Path) -> str:
    """The UTF-8 text of a regular file."""
    with opened(path) as stream:
        data = stream.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StorageError(
            f"{path} is damaged: it is not UTF-8 text ({error}). Restore it from a copy."
        ) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object together with its own digest."""
    plain = json.loads(json.dumps(value))
    whole = {**plain, "sha256": _json_digest(plain)}
    write_file(path, json.dumps(whole, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object that `write_json` wrote."""
    text = read_text(path)
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise StorageError(
                f"{path} is damaged: it holds no JSON object. Restore it from a copy."
            )
        written = value.pop("sha256", None)
        whole = written == _json_digest(value)
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{path} is damaged: it is not JSON ({error}). Restore it from a copy."
        ) from error
    if not whole:
        raise StorageError(
            f"{path} is damaged: its content does not match its sha256. Restore it from a copy."
        )
    return value


def _entries(folder: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Size and digest by name, as the manifest says; names must stay inside the folder."""
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise StorageError(
            f"{folder / MANIFEST} is damaged: its files are {files!r:.80}, not an object. "
            "Restore it from a copy."
        )
    found = {}
    for name, entry in files.items():
        entry = entry if isinstance(entry, dict) else {}
        size, sha256 = entry.get("bytes"), entry.get("sha256")
        path = PurePosixPath(name)
        plain = path.parts and ".." not in path.parts and not path.is_absolute()
        if not plain or "\0" in name or "\\" in name or len(name) > _MOST_NAME:
            raise StorageError(f"{folder / MANIFEST} lists {name!r:.120}, which is no file of it.")
        if type(size) is not int or not isinstance(sha256, str):
            raise StorageError(
                f"{folder / MANIFEST} is damaged: {name!r:.120} has no size and digest. "
                "Restore it from a copy."
            )
        found[name] = (size, sha256)
    return found


def _require_inside(folder: Path, name: str) -> None:
    """Refuse a link that leads out of `folder`; a hub's cache links to its `blobs`, beside it."""
    roots = [folder.resolve()]
    if roots[0].parent.name == "snapshots":
        roots.append(roots[0].parent.parent / "blobs")
    try:
        target = (folder / name).resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise StorageError(f"{folder / name} cannot be read: {error}.") from error
    if not any(target.is_relative_to(root) for root in roots):
        raise StorageError(
            f"{folder / name} is a link to {target}, outside its folder. Put the file itself there."
        )


def _json_digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def digest(path: Path) -> str:
    """Hex sha256 of a file."""
    with opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # only POSIX can flush a directory entry
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def not_written(path: Path, error: OSError) -> StorageError:
    """The error for a file or folder that cannot be written (full disk, read-only, no rights)."""
    reason = error.strerror or str(error)
    return StorageError(
        f"{path} could not be written: {reason}. Nothing was replaced; free space or fix the "
        "permissions and try again."
    )

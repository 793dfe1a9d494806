"""Files and folders that appear whole or not at all, and the digests that prove they still are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldflux.errors import StorageError

MANIFEST = "manifest.json"


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
        draft.unlink(missing_ok=True)
        raise _not_written(path, error) from error
    _sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make the folder and those above it, unless they are there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error


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
        raise _not_written(path, error) from error
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


def check_seal(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed folder, after every file has been compared with it."""
    manifest = read_json(folder / MANIFEST)
    for name, entry in manifest["files"].items():
        check_file(folder / name, entry["bytes"], entry["sha256"])
    return manifest


def check_file(path: Path, size: int, sha256: str) -> None:
    """Raise `StorageError` unless the file is there with that size and digest."""
    if not path.is_file():
        raise StorageError(f"{path} is missing. Restore it, or use an older copy of its folder.")
    found = path.stat().st_size
    if found != size:
        raise StorageError(
            f"{path} is damaged: it has {found} bytes, {size} were written. "
            "Restore it, or use an older copy of its folder."
        )
    if digest(path) != sha256:
        raise StorageError(
            f"{path} is damaged: its content does not match its sha256. "
            "Restore it, or use an older copy of its folder."
        )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object together with its own digest."""
    plain = json.loads(json.dumps(value))
    whole = {**plain, "sha256": _json_digest(plain)}
    write_file(path, json.dumps(whole, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object that `write_json` wrote."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{path} is damaged: it is not JSON ({error}). Restore it from a copy."
        ) from error
    if not isinstance(value, dict):
        raise StorageError(f"{path} is damaged: it holds no JSON object. Restore it from a copy.")
    if value.pop("sha256", None) != _json_digest(value):
        raise StorageError(
            f"{path} is damaged: its content does not match its sha256. Restore it from a copy."
        )
    return value


def _json_digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def digest(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as stream:
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


def _not_written(path: Path, error: OSError) -> StorageError:
    reason = error.strerror or str(error)
    return StorageError(
        f"{path} could not be written: {reason}. Nothing was replaced; free space or fix the "
        "permissions and try again."
    )

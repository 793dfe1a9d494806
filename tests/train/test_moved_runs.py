"""A run folder that was moved elsewhere, and one on a file system that cannot be written to."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from worldflux.errors import StorageError
from worldflux.runs import Run
from worldflux_train import api
from worldflux_train.report import write_report

_LOCKED: list[str] = []


def _refuse_writing(event: str, arguments: tuple[Any, ...]) -> None:
    """Python asks here before it touches a file; root could write to a folder without rights."""
    if not _LOCKED or event not in ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"):
        return
    reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if not reads and str(arguments[0]).startswith(_LOCKED[0]):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))


sys.addaudithook(_refuse_writing)


@pytest.fixture
def run(tiny: Any, tmp_path: Path) -> Run:
    return api.train(tiny(overrides={"train.steps": 30}), tmp_path / "run").run


@pytest.fixture
def locked(run: Run) -> Iterator[Run]:
    _LOCKED.append(str(run.path))
    yield run
    _LOCKED.clear()


def imagine(path: Path) -> Path:
    return api.imagine_run(path, horizon=2, context=1, episodes=1, kind="gif")[1]


def test_a_moved_run_is_used_where_it_is(run: Run, tmp_path: Path) -> None:
    there = tmp_path / "elsewhere" / "other name"
    there.parent.mkdir()
    shutil.move(run.path, there)
    assert api.evaluate_run(there, episodes=1).row()["eval/episodes"] == 1
    assert there in imagine(there).parents
    text = write_report(Run.open(there)).read_text()
    assert str(there) in text and str(run.path) not in text
    assert api.resume(there, steps=60).step >= 60
    assert max(Run.open(there).ticks()) >= 60
    assert not run.path.exists()


def test_a_run_that_is_only_read_is_evaluated(locked: Run) -> None:
    assert api.evaluate_run(locked.path, episodes=1).row()["eval/episodes"] == 1


@pytest.mark.parametrize(
    ("use", "file"),
    [
        (lambda run: write_report(run), "report.html"),
        (lambda run: imagine(run.path), "imagined-"),
        (lambda run: api.resume(run.path, steps=60), "run.log"),
    ],
)
def test_what_cannot_be_written_is_a_sentence(
    locked: Run, use: Callable[[Run], Any], file: str
) -> None:
    with pytest.raises(StorageError, match=rf"{file}.* could not be written: Read-only file sys"):
        use(locked)

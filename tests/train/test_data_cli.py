"""`worldflux data`: what a folder holds, whether it is whole, and a checked copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from worldflux.columns import step_columns
from worldflux.episodes import Episodes, EpisodeWriter
from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux.testing.episodes import counted_episode
from worldflux_train.data_cli import app

COLUMNS = step_columns({"state": TensorSpec((2,))}, TensorSpec((), "int64", n=5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = EpisodeWriter(tmp_path / "episodes", COLUMNS)
    for number, rows in enumerate((4, 9, 2)):
        writer.write(counted_episode(COLUMNS, rows, number), seed=number)
    return tmp_path / "episodes"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_info_says_what_there_is(folder: Path) -> None:
    said = run("info", folder)
    assert ": 3 episodes, 15 rows" in said and "rows of an episode: 2 to 9, mean 5.0" in said
    assert "  action: int64 () n=5" in said and "  obs.state: float32 (2,)" in said


def test_validate_finds_a_flipped_byte_and_info_does_not_look(folder: Path) -> None:
    assert "3 episodes are whole" in run("validate", folder)
    file = folder / "obs.state.bin"
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    file.write_bytes(data)
    assert "3 episodes" in run("info", folder)
    with pytest.raises(StorageError, match="damaged in episode 1"):
        run("validate", folder)
    with pytest.raises(StorageError, match="damaged in episode 1"):
        run("convert", folder, folder.parent / "new")


def test_convert_copies_all_or_a_part(folder: Path, tmp_path: Path) -> None:
    assert "3 episodes written" in run("convert", folder, tmp_path / "all")
    run("convert", folder, tmp_path / "part", "--first", 1, "--count", 1)
    ours, theirs = Episodes(tmp_path / "part"), Episodes(folder)
    assert len(ours) == 1 and ours.columns == theirs.columns and ours.about(0) == {"seed": 1}
    for name, value in theirs[1].items():
        np.testing.assert_array_equal(ours[0][name], value)
    with pytest.raises(StorageError, match="exists already"):
        run("convert", folder, tmp_path / "all")
    with pytest.raises(StorageError, match="has 3 episodes, none from number 3 on"):
        run("convert", folder, tmp_path / "none", "--first", 3)

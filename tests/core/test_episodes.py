"""Episodes on disk: what is written is read, what was cut off is left out, damage is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldflux.atomic import read_json, write_json
from worldflux.columns import step_columns
from worldflux.episodes import (
    ABOUT,
    INDEX,
    EpisodeRecorder,
    Episodes,
    EpisodeWriter,
    check_episode,
)
from worldflux.errors import ContractError, StorageError
from worldflux.specs import TensorSpec

COLUMNS = step_columns(
    {"image": TensorSpec((3, 2, 2), "uint8"), "a/b": TensorSpec((2,))}, TensorSpec((), "int64", n=9)
)


def episode(actions: int, seed: int = 0) -> dict[str, Any]:
    """An episode of `actions` steps and its last observation."""
    generator, rows = np.random.default_rng(seed), actions + 1
    made: dict[str, Any] = {
        "obs.image": generator.integers(0, 255, (rows, 3, 2, 2), np.uint8),
        "obs.a/b": generator.normal(size=(rows, 2)).astype(np.float32),
        "action": generator.integers(1, 9, rows),
        "reward": generator.normal(size=rows).astype(np.float32),
        "is_first": np.arange(rows) == 0,
        "is_last": np.arange(rows) == actions,
        "is_terminal": (np.arange(rows) == actions) & bool(seed % 2),
    }
    made["reward"][0] = 0
    made["action"][-1] = 0
    return made


def assert_equal(found: Any, expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three episodes of 4, 1 and 6 actions."""
    writer = EpisodeWriter(tmp_path / "episodes", COLUMNS)
    for number, actions in enumerate((4, 1, 6)):
        assert writer.write(episode(actions, number), seed=number) == number
    return tmp_path / "episodes"


def test_episodes_are_read_as_they_were_written(folder: Path) -> None:
    found = Episodes(folder)
    assert len(found) == 3 and found.lengths.tolist() == [5, 2, 7]
    for number, actions in enumerate((4, 1, 6)):
        assert_equal(found[number], episode(actions, number))
        assert found.about(number) == {"seed": number}
    assert_equal(found[-1], episode(6, 2))
    assert [len(one["reward"]) for one in found[1:]] == [2, 7]
    assert found.columns.keys() == COLUMNS.keys()
    with pytest.raises(IndexError):
        found[3]


def test_what_is_read_is_a_read_only_view_of_the_file(folder: Path) -> None:
    image = Episodes(folder)[2]["obs.image"]
    assert not image.flags.writeable and not image.flags.owndata


def test_writing_goes_on_where_it_stopped(folder: Path) -> None:
    assert EpisodeWriter(folder, COLUMNS).write(episode(3, 7)) == 3
    found = Episodes(folder)
    assert_equal(found[0], episode(4, 0))
    assert_equal(found[3], episode(3, 7))


def test_an_empty_folder_has_no_episodes(tmp_path: Path) -> None:
    EpisodeWriter(tmp_path / "a", COLUMNS)
    assert len(Episodes(tmp_path / "a")) == 0


def test_other_columns_are_refused(folder: Path) -> None:
    with pytest.raises(StorageError, match="Choose another folder"):
        EpisodeWriter(folder, step_columns({}, TensorSpec(())))


def test_spaces_come_back_whole(tmp_path: Path) -> None:
    """A run from files has the spaces of a run from the environment that made them."""
    columns = step_columns(
        {"state": TensorSpec((2,), low=(-float("inf"), 0.1), high=3.5)},
        TensorSpec((), "int64", n=3, labels=("left", "stay", "right")),
    )
    EpisodeWriter(tmp_path / "a", columns)
    assert Episodes(tmp_path / "a").columns == columns
    unnamed = columns | {"action": TensorSpec((), "int64", n=3)}
    EpisodeWriter(tmp_path / "a", unnamed)  # what choices are called does not matter
    with pytest.raises(StorageError, match=r"column 'action' is \{.*'n': 3.*these have .*'n': 4"):
        EpisodeWriter(tmp_path / "a", columns | {"action": TensorSpec((), "int64", n=4)})
    write_json(tmp_path / "a" / ABOUT, {"version": 1, "columns": {"action": {"size": 3}}})
    with pytest.raises(StorageError, match="damaged: it does not describe its columns"):
        Episodes(tmp_path / "a")


def test_video_has_neither_actions_nor_rewards_and_an_image_is_an_episode(tmp_path: Path) -> None:
    columns = step_columns(
        {"image": TensorSpec((1, 2, 2), "uint8")}, extra={"label": TensorSpec((), "int64")}
    )
    writer = EpisodeWriter(tmp_path / "a", columns)
    for rows in (1, 4):
        step = np.arange(rows)
        first, last = step == 0, step == rows - 1
        flags = {"is_first": first, "is_last": last, "is_terminal": np.zeros(rows, bool)}
        pixels = np.full((rows, 1, 2, 2), rows, np.uint8)
        writer.write({"obs.image": pixels, **flags, "extra.label": step})
    found = Episodes(tmp_path / "a")
    assert found.lengths.tolist() == [1, 4]
    assert found[1]["extra.label"].tolist() == [0, 1, 2, 3]
    recorder = EpisodeRecorder(writer, 1)
    row = {name: value[:1] for name, value in found[1].items()}
    recorder.append(row)
    recorder.append(row)  # cut off by a new beginning
    assert Episodes(tmp_path / "a").lengths.tolist() == [1, 4, 1]


WRITER = """
import sys, itertools
sys.path.insert(0, {tests!r})
from test_episodes import COLUMNS, episode
from worldflux.episodes import EpisodeWriter
writer = EpisodeWriter({folder!r}, COLUMNS)
for number in itertools.count():
    writer.write(episode(number % 50, number))
    sys.stdout.write("."); sys.stdout.flush()
"""


def test_a_killed_writer_loses_only_the_unfinished_episode(tmp_path: Path) -> None:
    script = WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "e"))
    for wanted in (3, 11):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        said = len(process.stdout.read(wanted))
        os.kill(process.pid, signal.SIGKILL)
        said += len(process.communicate()[0])
        found = Episodes(tmp_path / "e")
        assert len(found) >= said >= wanted
    # The second process began again at its own episode 0, after those of the first.
    numbers = [length for length in found.lengths.tolist() if length == 1]
    assert len(numbers) >= 2
    for number in range(len(found)):
        check_episode(COLUMNS, found[number])


@pytest.mark.parametrize("cut", [1, 20])
def test_an_episode_without_its_whole_line_never_happened(folder: Path, cut: int) -> None:
    index = folder / INDEX
    index.write_bytes(index.read_bytes()[:-cut])
    assert len(Episodes(folder)) == 2
    EpisodeWriter(folder, COLUMNS).write(episode(8, 5))
    found = Episodes(folder)
    assert found.lengths.tolist() == [5, 2, 9]
    assert_equal(found[2], episode(8, 5))


def test_a_column_cut_short_is_named_with_what_can_be_kept(folder: Path) -> None:
    column = folder / "obs.a%2Fb.bin"
    column.write_bytes(column.read_bytes()[:-1])
    text = r"obs\.a%2Fb\.bin is damaged: it has 111 bytes of 112.*keep the 2 episodes"
    for opened in (Episodes, lambda path: EpisodeWriter(path, COLUMNS)):
        with pytest.raises(StorageError, match=text + ".*after line 2"):
            opened(folder)
    lines = (folder / INDEX).read_text().splitlines(keepends=True)
    (folder / INDEX).write_text("".join(lines[:2]))  # what the message says
    assert_equal(Episodes(folder)[1], episode(1, 1))


def test_a_missing_column_is_named(folder: Path) -> None:
    (folder / "action.bin").unlink()
    with pytest.raises(StorageError, match=r"action\.bin is damaged: it has 0 bytes of 112"):
        Episodes(folder)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_when_the_episode_is_read(folder: Path) -> None:
    flip(folder / "obs.image.bin", 5 * 12 + 3)
    found = Episodes(folder)
    assert_equal(found[0], episode(4, 0))
    with pytest.raises(StorageError, match=r"obs\.image\.bin is damaged in episode 1: its check"):
        found[1]
    assert_equal(found[2], episode(6, 2))
    assert not np.array_equal(Episodes(folder, verify=False)[1]["obs.image"], episode(1, 1))


@pytest.mark.parametrize("at", [0, 12, 40])
def test_a_flipped_bit_in_the_index_is_found(folder: Path, at: int) -> None:
    first = (folder / INDEX).read_bytes().index(b"\n") + 1
    flip(folder / INDEX, first + at)
    with pytest.raises(StorageError, match=r"index\.jsonl line 2 is damaged.*keep the 1 ep"):
        Episodes(folder)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"holds no episodes: it has no episodes\.json"):
        Episodes(tmp_path)


def test_another_version_is_refused(folder: Path) -> None:
    write_json(folder / ABOUT, read_json(folder / ABOUT) | {"version": 9})
    with pytest.raises(StorageError, match="has version 9, this WorldFlux reads 1"):
        Episodes(folder)


def test_a_write_that_fails_leaves_the_episodes_before_it(folder: Path) -> None:
    writer = EpisodeWriter(folder, COLUMNS)
    (folder / "reward.bin").rename(folder / "kept")
    (folder / "reward.bin").mkdir()
    with pytest.raises(StorageError, match=r"reward\.bin could not be written.*are intact"):
        writer.write(episode(3))
    (folder / "reward.bin").rmdir()
    (folder / "kept").rename(folder / "reward.bin")
    assert len(Episodes(folder)) == 3
    writer.write(episode(3))
    assert_equal(Episodes(folder)[3], episode(3))


BROKEN: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda e: e["is_first"].__setitem__(2, True), "is_first must be True at its first row"),
    (lambda e: e["is_first"].fill(False), "is_first must be True at its first row"),
    (lambda e: e["is_last"].fill(False), "is_last must be True at its last row"),
    (lambda e: e["is_terminal"].__setitem__(1, True), "is_terminal may be True at its last row"),
    (lambda e: e["reward"].__setitem__(0, 1), "the reward of its first row must be 0"),
    (lambda e: e["action"].__setitem__(-1, 1), "the action of its last row must be zero"),
    (lambda e: e.update(action=e["action"][:-1]), r"'action' has shape \(4,\), expected \(5,\)"),
    (lambda e: e.pop("obs.image"), r"An episode lacks obs\.image"),
    (lambda e: e.update({"obs.imag": 0}), r"unknown column 'obs\.imag'\. Did you mean"),
]


@pytest.mark.parametrize(("damage", "text"), BROKEN)
def test_an_episode_that_breaks_the_convention_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, Any]], object], text: str
) -> None:
    writer, broken = EpisodeWriter(tmp_path / "e", COLUMNS), episode(4)
    damage(broken)
    with pytest.raises(ContractError, match=text):
        writer.write(broken)
    assert len(Episodes(tmp_path / "e")) == 0


def test_an_episode_of_no_rows_is_refused(tmp_path: Path) -> None:
    nothing = {name: value[:0] for name, value in episode(1).items()}
    with pytest.raises(ContractError, match="of 0 rows breaks the time convention"):
        EpisodeWriter(tmp_path / "e", COLUMNS).write(nothing)


def test_facts_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="must be plain JSON"):
        EpisodeWriter(tmp_path / "e", COLUMNS).write(episode(1), seed=np.int64(3))


def test_a_recorder_writes_each_environments_episodes_as_they_end(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(EpisodeWriter(tmp_path / "e", COLUMNS), num_envs=2)
    streams = [[episode(3, 1), episode(2, 2)], [episode(6, 3)]]
    steps: list[list[dict[str, Any]]] = [
        [{n: v[t] for n, v in one.items()} for one in stream for t in range(len(one["reward"]))]
        for stream in streams
    ]
    blank = {n: np.zeros_like(v) for n, v in steps[0][0].items()}
    for t in range(7):
        now = [stream[t] if t < len(stream) else blank for stream in steps]
        rows = {name: np.stack([step[name] for step in now]) for name in blank}
        mask = np.array([t < len(stream) for stream in steps])
        recorder.append(rows | {"stored.deter": np.zeros((2, 4))}, mask)
        for value in rows.values():  # a caller that uses its buffers again
            value[:] = 0
    found = Episodes(tmp_path / "e")
    assert len(found) == 3
    for number, expected in enumerate((streams[0][0], streams[0][1], streams[1][0])):
        assert_equal(found[number], expected)


def test_a_recorder_ends_an_abandoned_episode_and_keeps_no_unfinished_one(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(EpisodeWriter(tmp_path / "e", COLUMNS), num_envs=1)
    whole = episode(5)
    for t in (0, 1, 2, 0, 1):
        recorder.append({name: value[t : t + 1] for name, value in whole.items()})
    found = Episodes(tmp_path / "e")
    assert found.lengths.tolist() == [3]
    assert found[0]["is_last"].tolist() == [False, False, True] and found[0]["action"][-1] == 0


def test_a_recorder_needs_every_column(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(EpisodeWriter(tmp_path / "e", COLUMNS), num_envs=1)
    with pytest.raises(ContractError, match=r"EpisodeRecorder\.append lacks obs\.image, obs\.a/b"):
        recorder.append({"action": np.zeros(1)})


def test_reading_episodes_imports_no_torch() -> None:
    code = "import sys, worldflux.episodes, worldflux.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""A replay saved and loaded goes on exactly as if it had never stopped; damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldflux.atomic import read_json, write_json
from worldflux.columns import step_columns
from worldflux.core.batch import Batch
from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux.testing.episodes import sampled
from worldflux_train.replay import Replay, prune, snapshot

COLUMNS = step_columns(
    {"image": TensorSpec((3, 4, 4), "uint8"), "state": TensorSpec((2,))},
    TensorSpec((2,)),
    {"deter": TensorSpec((4,), "bfloat16"), "code": TensorSpec((3,), "uint8")},
)
ENVS = 2


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8 rows, so that a small replay has several."""
    monkeypatch.setattr(snapshot, "_BLOCK_BYTES", 8 * 90)


def make(capacity: int = 100, **options: Any) -> Replay:
    return Replay(COLUMNS, capacity=capacity, num_envs=ENVS, **options)


def collect(replay: Replay, steps: range) -> None:
    """Steps that are a function of their number alone; env 1 pauses now and then."""
    for t in steps:
        generator = np.random.default_rng(t)
        rows = {
            name: (generator.random((ENVS, *spec.shape)) * 200).astype(
                "float32" if spec.dtype == "bfloat16" else spec.dtype
            )
            for name, spec in COLUMNS.items()
        }
        first, last = t % 10 == 0, t % 10 == 9
        rows |= {"is_first": np.full(ENVS, first), "is_last": np.full(ENVS, last)}
        rows |= {"is_terminal": np.zeros(ENVS, bool)}
        rows["reward"] = np.full(ENVS, 0 if first else t, np.float32)
        replay.append(rows, np.array([True, t % 7 != 3 or first]))


def train(replay: Replay, times: int = 1, done: int = 0) -> list[Batch]:
    """Samples and writes back, as a learner does."""
    batches = []
    for update in range(done, done + times):
        batch = sampled(replay, 4, 5, 1, update=update).map(torch.clone)
        assert batch.index is not None
        written = {
            "deter": batch.obs["state"][:, 1:].repeat(1, 1, 2) + 1,
            "code": torch.ones(4, 5, 3, dtype=torch.uint8),
        }
        replay.write(batch.index[:, 1:], written)
        batches.append(batch)
    return batches


def assert_same(one: list[Batch], two: list[Batch]) -> None:
    for left, right in zip(one, two, strict=True):
        tensors: list[list[torch.Tensor]] = [[], []]
        for found, batch in zip(tensors, (left, right), strict=True):
            batch.map(lambda tensor, found=found: found.append(tensor) or tensor)  # type: ignore[misc]
        assert len(tensors[0]) == 10
        for a, b in zip(*tensors, strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("before", [0, 13, 70, 171])
@pytest.mark.parametrize(("storage", "other"), [("memory", "device"), ("device", "memory")])
def test_a_loaded_replay_goes_on_as_the_saved_one(
    tmp_path: Path, share: bool, online: bool, before: int, storage: str, other: str
) -> None:
    shared = tmp_path / "shared" if share else None
    replay = make(storage=storage, online=online)
    collect(replay, range(before))
    if before:
        train(replay, 3)
    replay.save(tmp_path / "at", shared, whole_up_to=0)
    again = make(storage=other, online=online)
    collect(again, range(5))  # whatever it held is forgotten
    again.load(tmp_path / "at", shared)
    assert len(again) == len(replay)
    for one in (replay, again):
        collect(one, range(before, before + 30))
    assert_same(train(replay, 5, 3), train(again, 5, 3))
    for name, one in (("a", replay), ("b", again)):
        one.save(tmp_path / name)
    assert (tmp_path / "a/replay.json").read_text() == (tmp_path / "b/replay.json").read_text()


def blocks(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_only_changed_blocks_are_written_again(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    replay = make(capacity=400)
    collect(replay, range(100))
    replay.save(tmp_path / "1", shared, whole_up_to=0)
    first = blocks(shared)
    replay.save(tmp_path / "2", shared, whole_up_to=0)
    assert blocks(shared) == first
    batch = sampled(replay, 1, 1)
    assert batch.index is not None
    replay.write(batch.index, {"code": torch.full((1, 1, 3), 7, dtype=torch.uint8)})
    replay.save(tmp_path / "3", shared, whole_up_to=0)
    assert len(blocks(shared) - first) == 1  # the latents of one block
    collect(replay, range(100, 101))
    replay.save(tmp_path / "4", shared, whole_up_to=0)
    assert len(blocks(shared) - first) == 1 + 2 * ENVS  # both groups of the newest block of each

    (shared / ".half.1.tmp").write_bytes(b"x")
    prune(shared, [tmp_path / "1", tmp_path / "4"])
    for name in ("1", "4"):
        make(capacity=400).load(tmp_path / name, shared)
    prune(shared, [tmp_path / "1"])
    make(capacity=400).load(tmp_path / "1", shared)
    assert blocks(shared) == first
    with pytest.raises(StorageError, match="cannot be read: No such file"):
        make(capacity=400).load(tmp_path / "3", shared)
    assert not (shared / ".half.1.tmp").exists()


def test_nothing_is_pruned_when_a_list_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared = tmp_path / "shared"
    prune(shared, [])  # a folder that was never made holds nothing to delete
    replay = make()
    for name in ("1", "2"):
        collect(replay, range(20))
        replay.save(tmp_path / name, shared, whole_up_to=0)
    before = blocks(shared)
    truncate(tmp_path / "1/replay.json")
    prune(shared, [tmp_path / "1", tmp_path / "2"])
    assert blocks(shared) == before
    assert "no old replay blocks are deleted" in caplog.text and "1/replay.json" in caplog.text


def test_a_loaded_replay_still_knows_which_blocks_are_saved(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    replay = make(capacity=400)
    collect(replay, range(100))
    replay.save(tmp_path / "1", shared, whole_up_to=0)
    again = make(capacity=400)
    again.load(tmp_path / "1", shared)
    before = {file.name: file.stat().st_mtime_ns for file in shared.iterdir()}
    collect(again, range(100, 102))
    again.save(tmp_path / "2", shared, whole_up_to=0)
    after = {file.name: file.stat().st_mtime_ns for file in shared.iterdir()}
    assert before.items() <= after.items() and len(after) - len(before) == 2 * ENVS


def test_a_shared_block_that_vanished_is_written_again(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    replay = make()
    collect(replay, range(40))
    replay.save(tmp_path / "1", shared, whole_up_to=0)
    next(iter(shared.iterdir())).unlink()
    replay.save(tmp_path / "2", shared, whole_up_to=0)
    make().load(tmp_path / "2", shared)


def test_a_small_replay_is_whole_in_its_checkpoint(tmp_path: Path) -> None:
    replay = make()
    collect(replay, range(40))
    replay.save(tmp_path / "1", tmp_path / "shared")
    assert not (tmp_path / "shared").exists()
    make().load(tmp_path / "1")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("what", ["block", "list"])
def test_damage_is_named_and_an_older_save_still_loads(
    tmp_path: Path, damage: Callable[[Path], None], what: str
) -> None:
    replay = make()
    collect(replay, range(40))
    replay.save(tmp_path / "1")
    collect(replay, range(40, 60))
    replay.save(tmp_path / "2")
    file = tmp_path / "2/replay.json"
    if what == "block":
        file = sorted((tmp_path / "2/blocks").iterdir())[0]
    damage(file)
    again = make()
    with pytest.raises(StorageError, match=rf"{file.name}.*(damaged|cannot be read)"):
        again.load(tmp_path / "2")
    again.load(tmp_path / "1")  # even into the replay that failed halfway
    collect(again, range(40, 60))
    assert_same(train(replay), train(again))


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (Replay(COLUMNS, capacity=100), "saved with lanes 2, this replay has 1"),
        (make(capacity=60), "saved with size 50, this replay has 30"),
        (Replay(dict(list(COLUMNS.items())[1:]), capacity=100, num_envs=2), "saved with columns"),
    ],
)
def test_a_replay_of_another_form_is_refused(tmp_path: Path, other: Replay, text: str) -> None:
    make().save(tmp_path)
    with pytest.raises(StorageError, match=text + ".*Load it with the configuration"):
        other.load(tmp_path)


def test_another_version_is_refused(tmp_path: Path) -> None:
    make().save(tmp_path)
    saved = read_json(tmp_path / "replay.json")
    write_json(tmp_path / "replay.json", saved | {"version": 1})
    with pytest.raises(StorageError, match="saved with version 1, this replay has 2"):
        make().load(tmp_path)


def test_the_shared_folder_must_be_given_back(tmp_path: Path) -> None:
    replay = make()
    collect(replay, range(10))
    replay.save(tmp_path / "1", tmp_path / "shared", whole_up_to=0)
    with pytest.raises(StorageError, match=r"shared folder\. Give that folder as shared="):
        make().load(tmp_path / "1")


def test_the_list_is_plain_json(tmp_path: Path) -> None:
    replay = make()
    collect(replay, range(10))
    replay.save(tmp_path)
    saved = json.loads((tmp_path / "replay.json").read_text())
    assert saved["count"] == [10, 9] and saved["drawn"] == {} and saved["before"] == [0, 0]

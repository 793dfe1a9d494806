"""The replay's edges: what it refuses, how much it takes, where it keeps things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldflux.columns import step_columns
from worldflux.errors import ConfigError, ContractError, StorageError
from worldflux.specs import TensorSpec
from worldflux.testing.episodes import sampled
from worldflux_train.replay import Replay

COLUMNS = step_columns(
    {"image": TensorSpec((3, 64, 64), "uint8"), "state": TensorSpec((4,))},
    {"action": TensorSpec((2,))},
    {"deter": TensorSpec((8,), "bfloat16")},
)


def rows(envs: int = 1, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "obs.image": np.zeros((envs, 3, 64, 64), np.uint8),
        "obs.state": np.zeros((envs, 4), np.float32),
        "action": np.ones((envs, 2), np.float32),
        "reward": np.zeros(envs, np.float32),
        "is_first": np.zeros(envs, bool),
        "is_last": np.zeros(envs, bool),
        "is_terminal": np.zeros(envs, bool),
        "stored.deter": torch.full((envs, 8), 1.5, dtype=torch.bfloat16),
    }
    return made | {key.replace("_dot_", "."): value for key, value in changes.items()}


def begun(**options: Any) -> Replay:
    replay = Replay(COLUMNS, capacity=10, **options)
    replay.append(rows(is_first=np.array([True])))
    return replay


def test_memory_is_known_before_anything_is_allocated() -> None:
    step = 3 * 64 * 64 + 4 * 4 + 2 * 4 + 4 + 3 + 8 * 2 + 4
    assert Replay.bytes_for(COLUMNS, 100_000) == 100_000 * step
    assert Replay.steps_in(COLUMNS, 100 * step + 5) == 100


def test_capacity_is_shared_by_the_environments() -> None:
    replay = Replay(COLUMNS, capacity=11, num_envs=3)
    assert replay.capacity == 9
    for t in range(5):
        replay.append(rows(3, is_first=np.full(3, t == 0)))
    assert len(replay) == 9


def test_append_names_the_rows_for_write() -> None:
    replay = Replay(COLUMNS, capacity=20, num_envs=2)
    names = replay.append(rows(2, is_first=np.ones(2, bool)), mask=np.array([True, False]))
    assert names.tolist() == [0, -1]
    assert replay.append(rows(2, is_first=np.ones(2, bool))).tolist() == [2, 1]
    replay.write(torch.tensor([[2]]), {"deter": torch.full((1, 1, 8), 4.0)})
    replay.append(rows(2))
    stored = {}
    for update in range(40):
        batch = sampled(replay, 1, 1, 1, update=update)
        assert batch.index is not None
        stored[int(batch.index[0, 0])] = float(batch.stored["deter"][0, 0, 0])
    assert stored == {0: 1.5, 2: 4.0, 1: 1.5}


def test_batches_have_the_columns_types() -> None:
    replay = begun()
    replay.append(rows(is_last=np.array([True])))
    batch = sampled(replay, 2, 1, 1)
    assert batch.obs["image"].dtype == torch.uint8 and batch.stored["deter"].dtype == torch.bfloat16
    assert batch.is_last.dtype == torch.bool and batch.index is not None
    assert batch.action[:, 0].all() and not batch.action[:, 1].any()


def test_an_abandoned_episode_ends_where_it_was_left() -> None:
    replay = begun()
    replay.append(rows())
    replay.append(rows(is_first=np.array([True])))
    batch = sampled(replay, 1, 3)
    assert batch.is_last.tolist() == [[False, True, False]]
    assert batch.is_terminal.tolist() == [[False, False, False]]
    assert batch.action[0].tolist() == [[1, 1], [0, 0], [1, 1]]


def test_buffers_are_used_again_by_the_same_shape_only() -> None:
    replay = begun()
    replay.append(rows())
    first = sampled(replay, 2, 1)
    assert sampled(replay, 2, 2).reward.data_ptr() != first.reward.data_ptr()
    assert sampled(replay, 2, 1).reward.data_ptr() == first.reward.data_ptr()


def test_buffers_on_another_device_are_sent_there() -> None:
    replay = begun(device="meta")
    assert sampled(replay, 2, 1).reward.device.type == "meta"


def test_disk_storage_is_files_of_the_columns_and_samples_the_same(tmp_path: Path) -> None:
    drawn = []
    for options in ({}, {"storage": "disk", "folder": tmp_path / "rows"}):
        replay = Replay(COLUMNS, capacity=50, **options)  # type: ignore[arg-type]
        generator = np.random.default_rng(0)
        for t in range(70):
            image = generator.integers(0, 255, (1, 3, 64, 64), np.uint8)
            replay.append(rows(is_first=np.array([t % 20 == 0]), obs_dot_image=image))
        drawn.append(sampled(replay, 8, 5, 1))
    assert torch.equal(drawn[0].obs["image"], drawn[1].obs["image"])
    files = {file.name: file.stat().st_size for file in (tmp_path / "rows").iterdir()}
    assert files["obs.image.bin"] == 50 * 3 * 64 * 64 and files["stored.deter.bin"] == 50 * 16
    assert len(files) == len(COLUMNS)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file could not be written: File exists"):
        Replay(COLUMNS, capacity=10, storage="disk", folder=tmp_path / "file")
    (tmp_path / "rows" / "action.bin").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"action\.bin could not be made.*another folder"):
        Replay(COLUMNS, capacity=10, storage="disk", folder=tmp_path / "rows")


BAD_ROWS = [
    ({"obs_dot_imag": 0}, r"unknown column 'obs\.imag'\. Did you mean 'obs\.image'\?"),
    ({"action": np.ones((1, 3), np.float32)}, r"'action' got shape \(1, 3\), expected \(1, 2\)"),
    ({"obs_dot_image": np.zeros((1, 3, 64, 64))}, r"'obs\.image' is uint8, got float64"),
    ({"is_terminal": np.array([True])}, "is_terminal without is_last"),
    ({"is_first": np.array([True]), "reward": np.ones(1, np.float32)}, "a reward at is_first"),
]


@pytest.mark.parametrize(("change", "text"), BAD_ROWS)
def test_rows_that_break_the_contract_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ContractError, match=text):
        begun().append(rows(**change))


def test_a_missing_column_is_named() -> None:
    partial = rows()
    del partial["reward"]
    with pytest.raises(ContractError, match=r"Replay\.append lacks reward\. Every step has"):
        begun().append(partial)


def test_an_episode_must_begin_with_is_first() -> None:
    with pytest.raises(ContractError, match="Environment 0 went on after its last step"):
        Replay(COLUMNS, capacity=10).append(rows())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"capacity": 3, "num_envs": 2}, "3 steps is too small for 2 environments. Use at least 4"),
        ({"capacity": 9, "storage": "dsk"}, r"'dsk'\. Did you mean 'disk'\?"),
        ({"capacity": 9, "storage": "disk"}, "'disk' with folder None: disk needs one"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Replay(COLUMNS, **options)


def test_a_column_type_we_cannot_keep_is_refused() -> None:
    with pytest.raises(ContractError, match=r"'obs\.a' has the type 'int63'\. Did you mean"):
        step_columns({"a": TensorSpec((), "int63")}, TensorSpec(()))


def test_the_online_queue_refuses_single_episodes() -> None:
    with pytest.raises(ContractError, match=r"wants those of one.*replay_online=false"):
        sampled(begun(online=True), 1, 1, boundary="within")


def test_only_stored_columns_can_be_written() -> None:
    replay, index = begun(), torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(ContractError, match=r"no stored column\. Did you mean 'deter'\?"):
        replay.write(index, {"detr": torch.zeros(1, 1, 8)})
    with pytest.raises(ContractError, match=r"shape \(1, 1, 7\), expected \(1, 1, 8\)"):
        replay.write(index, {"deter": torch.zeros(1, 1, 7)})


def test_a_step_has_one_action() -> None:
    with pytest.raises(ContractError, match="A step takes one action space, got 2: a, b"):
        step_columns({}, {"a": TensorSpec(()), "b": TensorSpec(())})

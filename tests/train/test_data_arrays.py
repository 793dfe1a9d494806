"""HDF5, npz and npy files in the layouts that people have, as episodes in the one convention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from worldflux.columns import step_columns
from worldflux.episodes import Episode, check_episode
from worldflux.errors import ConfigError, StorageError
from worldflux.specs import TensorSpec
from worldflux.testing.episodes import counted_episode
from worldflux_train.data.formats import DataFormat, find_format, open_recorded
from worldflux_train.data.formats.hdf5 import Hdf5
from worldflux_train.data.formats.npz import Npz

COLUMNS = step_columns({"state": TensorSpec((2,))}, TensorSpec((2,)))


def transitions(count: int, number: int = 0) -> dict[str, np.ndarray]:
    """Step t of episode n: observation 100 n + t, action (t + 1) / 100, reward t + 1."""
    t = np.arange(count)
    return {
        "obs": np.stack([100.0 * number + t, t], 1),
        "next": np.stack([100.0 * number + t + 1, t + 1], 1),
        "action": np.repeat((t[:, None] + 1) / 100, 2, 1),
        "reward": t + 1.0,
        "last": t == count - 1,
    }


def check_counted(found: DataFormat, number: int, rows: int, first: float, terminal: bool) -> None:
    """Episode `number` is whole, in our convention, and any of its rows are what they are in it."""
    episode = found[number]
    check_episode(found.columns, episode)
    t = np.arange(rows)
    key = next(name for name in found.columns if name.startswith("obs."))
    np.testing.assert_array_equal(episode[key][:, 0], first + t)
    np.testing.assert_allclose(episode["action"][:, 0], np.where(t < rows - 1, (t + 1) / 100, 0))
    np.testing.assert_array_equal(episode["reward"], t)  # row t came with observation t
    assert bool(episode["is_terminal"][-1]) == terminal
    for index in (slice(1, 3), slice(0, rows, 2), slice(rows - 1, rows), slice(1, rows, 3)):
        for name, values in episode.items():
            np.testing.assert_array_equal(found.rows(number, name, index), values[index])


def test_robomimic_with_and_without_what_followed(tmp_path: Path) -> None:
    for name, following in (("a.hdf5", True), ("b.hdf5", False)):
        with h5py.File(tmp_path / name, "w") as file:
            for number, count in ((0, 5), (1, 4), (10, 6), (2, 3)):
                steps = transitions(count, number)
                group = file.create_group(f"data/demo_{number}")
                group["obs/robot0_pos"] = steps["obs"]
                if following:
                    group["next_obs/robot0_pos"] = steps["next"]
                group["actions"], group["rewards"] = steps["action"], steps["reward"]
                group["dones"] = steps["last"].astype(int)
    whole, bare = (open_recorded(tmp_path / name) for name in ("a.hdf5", "b.hdf5"))
    assert find_format(tmp_path / "a.hdf5") == "hdf5"
    assert whole.lengths.tolist() == [6, 5, 4, 7], "demo_10 comes after demo_2"
    assert bare.lengths.tolist() == [5, 4, 3, 6]
    for place, number in enumerate((0, 1, 2, 10)):
        check_counted(whole, place, int(whole.lengths[place]), 100 * number, terminal=True)
        check_counted(bare, place, int(bare.lengths[place]), 100 * number, terminal=False)
    assert whole.about(3)["file"].endswith("a.hdf5 data/demo_10")
    assert "obs.robot0_pos" in whole.columns


@pytest.mark.parametrize("kind", ["hdf5", "npz"])
def test_d4rl_is_cut_where_episodes_end(tmp_path: Path, kind: str) -> None:
    parts = [transitions(count, number) for number, count in enumerate((5, 4, 6))]
    flat = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    ends = np.flatnonzero(flat["last"])
    terminals, timeouts = np.zeros(15, bool), np.zeros(15, bool)
    terminals[ends[0]] = timeouts[ends[1]] = True  # the third one was still running
    arrays = {
        "observations": flat["obs"], "actions": flat["action"], "rewards": flat["reward"],
        "terminals": terminals, "timeouts": timeouts, "next_observations": flat["next"],
    }  # fmt: skip
    file = tmp_path / f"set.{kind}"
    if kind == "npz":
        np.savez(file, **arrays)
    else:
        with h5py.File(file, "w") as written:
            for name, values in arrays.items():
                written[name] = values
    found = open_recorded(file)
    assert found.lengths.tolist() == [6, 5, 7]
    for number, terminal in enumerate((True, False, False)):
        check_counted(found, number, int(found.lengths[number]), 100 * number, terminal)


def test_minari_as_it_is_on_disk(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "w") as file:
        for number, count in enumerate((5, 3)):
            steps = transitions(count, number)
            group = file.create_group(f"episode_{number}")
            group["observations/pos"] = np.concatenate([steps["obs"], steps["next"][-1:]])
            group["actions"], group["rewards"] = steps["action"], steps["reward"]
            group["terminations"] = steps["last"] & (number == 1)
            group["truncations"] = steps["last"] & (number == 0)
    found = open_recorded(tmp_path)
    assert found.lengths.tolist() == [6, 4]
    check_counted(found, 0, 6, 0, terminal=False)
    check_counted(found, 1, 4, 100, terminal=True)
    space = {"type": "Box", "low": [0.0, -0.5], "high": [0.1, 0.5], "shape": [2]}
    about = json.dumps({"action_space": json.dumps(space)})
    (tmp_path / "data" / "metadata.json").write_text(about)
    scaled = open_recorded(tmp_path)[0]["action"][:-1]
    raw = (np.arange(5) + 1) / 100
    np.testing.assert_allclose(scaled, np.stack([raw * 20 - 1, raw * 2], 1), atol=1e-6)


@pytest.mark.parametrize("channels_first", [False, True])
def test_videos_in_one_array(tmp_path: Path, channels_first: bool) -> None:
    videos = np.random.default_rng(0).integers(0, 256, (3, 7, 12, 10, 3), np.uint8)
    stored = videos.transpose(0, 1, 4, 2, 3) if channels_first else videos
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["videos"] = stored
        file["actions"] = np.arange(21).reshape(3, 7) % 4
    np.save(tmp_path / "v.npy", stored)
    for path, acts in ((tmp_path / "v.h5", True), (tmp_path / "v.npy", False)):
        found = open_recorded(path)
        assert found.lengths.tolist() == [7, 7, 7] and ("action" in found.columns) == acts
        assert found.columns["obs.image"].shape == (3, 12, 10)
        np.testing.assert_array_equal(
            found.rows(2, "obs.image", slice(1, 7, 2)), videos[2, 1:7:2].transpose(0, 3, 1, 2)
        )
        check_episode(found.columns, found[1])
    acted = open_recorded(tmp_path / "v.h5")
    assert acted.columns["action"].n == 4
    assert acted[1]["action"].tolist() == [3, 0, 1, 2, 3, 0, 0]
    assert acted.about(2)["file"].endswith("v.h5 video 2")


def test_frames_of_one_long_video(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    with h5py.File(tmp_path / "pong_frames.h5", "w") as file:
        file["frames"] = frames
    (tmp_path / "n").mkdir()
    np.save(tmp_path / "n" / "one.npy", frames[:12])
    np.save(tmp_path / "n" / "two.npy", frames[12:])
    assert open_recorded(tmp_path).lengths.tolist() == [30]
    found = open_recorded(tmp_path / "n")
    assert found.lengths.tolist() == [12, 18]
    np.testing.assert_array_equal(found[1]["obs.image"][3], frames[15].transpose(2, 0, 1))


def test_any_names_by_a_mapping(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number, count in enumerate((4, 5)):
            steps = transitions(count, number)
            group = file.create_group(f"rollouts/ep{number}")
            group["sensor/pos"], group["cmd"] = steps["obs"], steps["action"] * 200 - 1
            group["gain"], group["task"] = steps["reward"], np.full(count, 3 + number)
    with pytest.raises(StorageError, match=r"x.h5 is in no known layout; it has: rollouts/ep0/cmd"):
        open_recorded(tmp_path)
    fields = {
        "layout": "groups", "episodes": "rollouts", "obs": {"pos": "sensor/pos"}, "action": "cmd",
        "reward": "gain", "extra": {"task": "task"}, "low": -1, "high": 199,
    }  # fmt: skip
    (tmp_path / "fields.yaml").write_text(yaml.safe_dump(fields))
    for given in (fields, str(tmp_path / "fields.yaml")):
        found = open_recorded(tmp_path, options={"fields": given})
        assert found[1]["extra.task"].tolist() == [4] * 5
        action = found[1]["action"][:-1, 0]
        np.testing.assert_allclose(
            action, ((np.arange(4) + 1) * 2 - 1 + 1) / 200 * 2 - 1, atol=1e-6
        )
    with pytest.raises(ConfigError, match=r"data.options.fields has no key 'reword'"):
        open_recorded(tmp_path, options={"fields": {**fields, "reword": "x"}})
    with pytest.raises(StorageError, match=r"it has no 'rollouts/ep0/speed'; it has: "):
        open_recorded(tmp_path, options={"fields": {**fields, "obs": {"v": "speed"}}})


def ours() -> list[tuple[Episode, dict[str, Any]]]:
    return [(counted_episode(COLUMNS, rows, n), {"seed": n}) for n, rows in enumerate((4, 9, 2))]


@pytest.mark.parametrize("kind", [Hdf5, Npz])
def test_our_own_layout_comes_back_as_it_was(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / ("ours.hdf5" if kind is Hdf5 else "ours")
    kind.write_to(path, COLUMNS, ours())
    found = open_recorded(path)
    assert isinstance(found, kind) and found.columns == COLUMNS
    assert found.lengths.tolist() == [4, 9, 2]
    for number, (episode, _) in enumerate(ours()):
        for name, values in episode.items():
            np.testing.assert_array_equal(found[number][name], values)
            np.testing.assert_array_equal(found.rows(number, name, slice(1, 2)), values[1:2])


def test_damaged_files_are_named(tmp_path: Path) -> None:
    Hdf5.write_to(tmp_path / "a.hdf5", COLUMNS, ours())
    whole = (tmp_path / "a.hdf5").read_bytes()
    (tmp_path / "a.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match=r"a.hdf5 cannot be read as HDF5"):
        open_recorded(tmp_path)
    Npz.write_to(tmp_path / "n", COLUMNS, ours())
    file = tmp_path / "n" / "episode_000001.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StorageError, match="episode_000001.npz.* cannot be read as npz"):
        open_recorded(tmp_path / "n")


def test_nothing_pickled_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", obs=np.array([{}, 1], dtype=object), action=np.zeros(2))
    with pytest.raises(StorageError, match="pickle"):
        open_recorded(tmp_path)


def test_the_kept_arrays_of_npz_files_are_few(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("worldflux_train.data.formats.npz._KEPT_BYTES", 200)
    Npz.write_to(tmp_path / "n", COLUMNS, ours() * 5)
    found = open_recorded(tmp_path / "n")
    for number in range(len(found)):
        found[number]
    assert isinstance(found, Npz) and found._bytes() <= 200
    assert json.loads((tmp_path / "n" / "columns.json").read_text())["action"]["shape"] == [2]

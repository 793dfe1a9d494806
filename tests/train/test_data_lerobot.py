"""LeRobot's version 3 and TinyWorlds' games, from files made here."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from worldflux.episodes import check_episode
from worldflux.errors import ConfigError, StorageError
from worldflux_train.data.formats import find_format, open_recorded
from worldflux_train.data.tinyworlds import REPOSITORY, fetch_tinyworlds

FPS, LENGTHS = 10, (12, 8, 9)


def png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), level, np.uint8)).save(stream, "png")
    return stream.getvalue()


def robot_set(path: Path) -> Path:
    """Frame i of the whole set is 8 i bright, its state (i, -i), its action (2 i, 5)."""
    total = sum(LENGTHS)
    features = {
        "observation.images.top": {"dtype": "video", "shape": [32, 48, 3]},
        "observation.wrist": {"dtype": "image", "shape": [4, 6, 3]},
        "observation.state": {"dtype": "float32", "shape": [2]},
        "action": {"dtype": "float32", "shape": [2]},
        "next.reward": {"dtype": "float32", "shape": [1]},
        "index": {"dtype": "int64", "shape": [1]},
    }
    names = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    info = {
        "codebase_version": "v3.0", "fps": FPS, "features": features,
        "data_path": f"data/{names}.parquet", "video_path": f"videos/{{video_key}}/{names}.mp4",
    }  # fmt: skip
    (path / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    (path / "meta" / "info.json").write_text(json.dumps(info))
    stats = {"action": {"min": [0, 5], "max": [2 * total - 2, 5]}}
    (path / "meta" / "stats.json").write_text(json.dumps(stats))
    first = np.cumsum(LENGTHS) - LENGTHS
    # The first two episodes share the files, the last one has files of its own.
    own = [(0, 0.0), (0, LENGTHS[0] / FPS), (1, 0.0)]
    video = "videos/observation.images.top"
    rows = [
        {"episode_index": n, "length": LENGTHS[n], "dataset_from_index": int(first[n]),
         "dataset_to_index": int(first[n]) + LENGTHS[n], "data/chunk_index": 0,
         "data/file_index": file, f"{video}/chunk_index": 0, f"{video}/file_index": file,
         f"{video}/from_timestamp": begin, f"{video}/to_timestamp": begin + LENGTHS[n] / FPS}
        for n, (file, begin) in enumerate(own)
    ]  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows),
                        path / "meta/episodes/chunk-000/file-000.parquet")  # fmt: skip
    for file, (begin, end) in enumerate(((0, 20), (20, 29))):
        table = [
            {"index": i, "observation.state": [float(i), float(-i)], "action": [2.0 * i, 5.0],
             "next.reward": [float(i)], "observation.wrist": {"bytes": png(i), "path": None}}
            for i in range(begin, end)
        ]  # fmt: skip
        (path / "data" / "chunk-000").mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(table),
                            path / f"data/chunk-000/file-00{file}.parquet")  # fmt: skip
        write_video(path / video / f"chunk-000/file-00{file}.mp4", range(begin, end))
    return path


def write_video(path: Path, levels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 48, 32, "yuv420p", 4_000_000
        for level in levels:
            pixels = np.full((32, 48, 3), 8 * level, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def test_a_lerobot_set(tmp_path: Path) -> None:
    found = open_recorded(robot_set(tmp_path))
    assert find_format(tmp_path) == "lerobot" and found.lengths.tolist() == list(LENGTHS)
    assert found.columns["obs.images_top"].shape == (3, 32, 48)
    first = np.cumsum(LENGTHS) - LENGTHS
    for number, begin in enumerate(first.tolist()):
        episode, count = found[number], LENGTHS[number]
        check_episode(found.columns, episode)
        frames = np.arange(begin, begin + count)
        shown = np.rint(episode["obs.images_top"].mean((1, 2, 3)) / 8)
        np.testing.assert_array_equal(shown, frames)
        np.testing.assert_array_equal(episode["obs.state"][:, 0], frames)
        np.testing.assert_array_equal(episode["obs.wrist"][:, 0, 0, 0], frames)
        np.testing.assert_array_equal(episode["reward"][1:], frames[:-1])
        np.testing.assert_allclose(episode["action"][:-1, 0], frames[:-1] / 14 - 1, atol=1e-6)
        assert (episode["action"][:-1, 1] == -1).all(), "an action that never changes"
        for name, values in episode.items():
            np.testing.assert_array_equal(found.rows(number, name, slice(2, 7, 2)), values[2:7:2])
    chosen = open_recorded(tmp_path, options={"keys": ["observation.state"]})
    assert [name for name in chosen.columns if name.startswith("obs.")] == ["obs.state"]


def test_what_is_not_there_or_older_is_said(tmp_path: Path) -> None:
    robot_set(tmp_path)
    with pytest.raises(StorageError, match=r"has no observation.depth; it has: observation.images"):
        open_recorded(tmp_path, options={"keys": ["observation.depth"]})
    (tmp_path / "data/chunk-000/file-001.parquet").write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=r"episode 2: .*file-001.parquet cannot be read"):
        open_recorded(tmp_path)[2]
    info = tmp_path / "meta" / "info.json"
    info.write_text(info.read_text().replace("v3.0", "v2.1"))
    with pytest.raises(StorageError, match=r"format v2.1, this reads v3"):
        open_recorded(tmp_path)


def test_tinyworlds_are_fetched_once_and_read(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def fetch(repository: str, file: str, *, repo_type: str, local_dir: Path) -> None:
        asked.append((repository, file))
        assert repo_type == "dataset"
        with h5py.File(local_dir / file, "w") as written:
            written["frames"] = np.zeros((20, 8, 8, 3), np.uint8)

    for _ in range(2):
        file = fetch_tinyworlds("PONG", tmp_path, fetch)
    assert asked == [(REPOSITORY, "pong_frames.h5")]
    assert open_recorded(file.parent).lengths.tolist() == [20]
    with pytest.raises(ConfigError, match=r"no game 'sonik'. Did you mean 'sonic'"):
        fetch_tinyworlds("sonik", tmp_path, fetch)

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    with pytest.raises(StorageError, match=r"no route to host. Put the file into"):
        fetch_tinyworlds("zelda", tmp_path, fails)

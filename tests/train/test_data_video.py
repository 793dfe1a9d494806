"""Videos and folders of frames as episodes: which frame is which, rates, seeking, actions."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from worldflux.columns import step_columns
from worldflux.errors import ContractError, StorageError
from worldflux.specs import TensorSpec
from worldflux.training import Phase
from worldflux_train.config import DataConfig
from worldflux_train.data import open_data
from worldflux_train.data.formats import find_format, open_recorded
from worldflux_train.data.formats.video import INDEX


def write(path: Path, count: int = 40, fps: int = 10, codec: str = "mpeg4", base: int = 0) -> Path:
    """Frame t is grey of brightness base + 6 t; a keyframe every 8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.gop_size = 8
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = Fraction(1, fps)
        for t in range(count):
            pixels = np.full((32, 48, 3), base + 6 * t, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def shown(images: Any, base: int = 0) -> list[int]:
    """Which frames images (K, 3, Y, X) are."""
    return np.rint((np.asarray(images).mean((1, 2, 3)) - base) / 6).astype(int).tolist()


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("a.mp4", "h264"), ("a.avi", "mpeg4"), ("a.mkv", "h264"),
     ("a.mov", "mpeg4"), ("a.webm", "libvpx-vp9")],
)  # fmt: skip
def test_any_rows_of_a_video_are_the_frames_asked_for(
    tmp_path: Path, name: str, codec: str
) -> None:
    write(tmp_path / name, codec=codec)
    found = open_recorded(tmp_path)
    assert find_format(tmp_path) == "video" and found.lengths.tolist() == [40]
    assert found.columns["obs.image"].shape == (3, 32, 48) and "action" not in found.columns
    for index in (slice(None), slice(3, 9), slice(8, 9), slice(17, 40, 5), slice(39, 40)):
        assert shown(found.rows(0, "obs.image", index)) == list(range(40))[index], index
    assert found.rows(0, "is_last", slice(35, 40)).tolist() == [False] * 4 + [True]


def test_folders_are_searched_and_the_index_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "b" / "two.mp4", 12)
    write(tmp_path / "a" / "deep" / "one.avi", 9)
    (tmp_path / "a" / "notes.txt").write_text("no video")
    found = open_recorded(tmp_path)
    assert found.lengths.tolist() == [9, 12] and (tmp_path / INDEX).is_file()
    kept = (tmp_path / INDEX).read_bytes()
    write(tmp_path / "b" / "two.mp4", 15)
    assert open_recorded(tmp_path).lengths.tolist() == [9, 15], "a changed file is looked at again"
    assert (tmp_path / INDEX).read_bytes() != kept
    (tmp_path / INDEX).write_text("{")
    assert open_recorded(tmp_path).lengths.tolist() == [9, 15]
    assert len(open_recorded(tmp_path / "b" / "two.mp4")) == 1, "a single file is a set of one"


def test_frames_at_another_rate_and_size(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", 40, fps=10)
    slower = open_recorded(tmp_path, options={"fps": 4, "size": [16, 24]})
    expected = [int(t / 4 * 10 + 1e-6) for t in range(int(3.9 * 4) + 1)]
    assert slower.lengths.tolist() == [len(expected)]
    images = slower[0]["obs.image"]
    assert images.shape[1:] == (3, 16, 24) and shown(images) == expected
    faster = open_recorded(tmp_path, options={"fps": 20})
    assert shown(faster.rows(0, "obs.image", slice(10, 16))) == [5, 5, 6, 6, 7, 7]


def test_actions_lie_beside_each_video(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", 20)
    np.save(tmp_path / "a.npy", np.arange(20) % 5)
    found = open_recorded(tmp_path)
    assert found.columns["action"].n == 5 and "reward" not in found.columns
    expected = np.arange(20) % 5
    expected[-1] = 0  # at the last frame no action is taken
    assert found[0]["action"].tolist() == expected.tolist()
    assert open_recorded(tmp_path, options={"actions": 9}).columns["action"].n == 9
    halved = open_recorded(tmp_path, options={"fps": 5})
    assert halved[0]["action"].tolist()[:4] == [0, 2, 4, 1]
    with pytest.raises(ContractError, match="actions=3, but the files hold action 4"):
        open_recorded(tmp_path, options={"actions": 3})
    np.save(tmp_path / "a.npy", np.zeros((19, 2), np.float32))
    assert open_recorded(tmp_path).columns["action"].shape == (2,)
    np.save(tmp_path / "a.npy", np.zeros(7))
    with pytest.raises(StorageError, match="a.npy has 7 actions for 20 frames"):
        open_recorded(tmp_path)
    np.save(tmp_path / "a.npy", np.zeros(20))
    write(tmp_path / "b.mp4", 5)
    with pytest.raises(StorageError, match="1 of 2 episodes have a file of actions; .*b.npy"):
        open_recorded(tmp_path)


def test_sequences_are_read_as_a_phase_asks(tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path / f"{n}.mp4", 20, base=10 * n)
    data = open_data(DataConfig(path=str(tmp_path), workers=3, validation=1 / 3), 0)
    columns = step_columns({"image": TensorSpec((3, 32, 48), "uint8")})
    source = data.source(columns, torch.device("cpu"))
    phase = Phase("p", 8, 4, boundary="within", stride=2)
    batch = source.read(source.choose(phase, 0))
    assert batch.obs["image"].shape == (8, 4, 3, 32, 48) and len(source.numbers) == 2
    for row in batch.obs["image"]:
        step = np.diff(row.float().mean((1, 2, 3)).numpy())
        np.testing.assert_allclose(step, 12, atol=2)


def test_damaged_videos_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.mp4", 30)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(StorageError, match=r"a.mp4 cannot be read as a video"):
        open_recorded(tmp_path)
    file.write_bytes(whole)
    found = open_recorded(tmp_path)
    middle = len(whole) // 2
    file.write_bytes(whole[:300] + bytes(middle) + whole[300 + middle :])
    with pytest.raises(StorageError, match=r"a.mp4: (frame \d+|it) cannot be decoded"):
        found[0]
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(StorageError, match="is in no known format"):
        open_recorded(tmp_path)


def test_folders_of_frames(tmp_path: Path) -> None:
    for clip, count in (("x/1", 12), ("x/2", 7)):
        (tmp_path / clip).mkdir(parents=True)
        for t in range(count):
            pixels = np.full((8, 10, 3), 6 * t, np.uint8)
            Image.fromarray(pixels).save(tmp_path / clip / f"frame_{t}.png")
        np.save(tmp_path / clip / "actions.npy", np.arange(count - 1) % 3)
    found = open_recorded(tmp_path, "frames")
    assert found.lengths.tolist() == [12, 7]
    assert shown(found.rows(0, "obs.image", slice(8, 12))) == [8, 9, 10, 11], "10 comes after 9"
    assert found[1]["action"].tolist() == [0, 1, 2, 0, 1, 2, 0]

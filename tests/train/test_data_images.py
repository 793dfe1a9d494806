"""Images as data: folders of classes, the layouts of ImageNet and CIFAR, subsets, parts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from worldflux.columns import step_columns
from worldflux.errors import ConfigError, StorageError
from worldflux.shapes import CLASSES, draw_shapes
from worldflux.specs import TensorSpec
from worldflux.training import Phase
from worldflux_train.config import DataConfig
from worldflux_train.data import Opened, open_data
from worldflux_train.data.drawn import write_shapes
from worldflux_train.data.formats import find_format, open_recorded
from worldflux_train.data_cli import app

CPU = torch.device("cpu")
LABELLED = step_columns(
    {"image": TensorSpec((3, 12, 12), "uint8")}, extra={"label": TensorSpec((), "int64")}
)
CROP = ({"centre_crop": {"size": 12}},)


def image_folder(path: Path, classes: dict[str, int], kind: str = "png", size: int = 12) -> Path:
    """Grey images whose brightness is 20 * class + number."""
    for place, (name, count) in enumerate(classes.items()):
        (path / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((size, size + number, 3), 20 * place + number, np.uint8)
            Image.fromarray(pixels).save(path / name / f"{name}_{number}.{kind}")
    return path


def opened(path: Path, **settings: Any) -> Opened:
    return open_data(DataConfig(path=str(path), augment=CROP, workers=0, **settings), 0)


def brightness(data: Opened, held_out: bool = False) -> set[int]:
    source = data.validation(LABELLED, CPU) if held_out else data.source(LABELLED, CPU)
    assert source is not None
    batch = source.read(source.choose(Phase("p", 200, 1), 0))
    batch.validate()
    assert batch.obs["image"].shape == (200, 1, 3, 12, 12) and bool(batch.is_last.all())
    level = batch.obs["image"][:, 0, 0, 0, 0].long()
    assert torch.equal(level // 20, batch.extra["label"][:, 0]), "the label is the image's own"
    return set(level.tolist())


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    data = opened(image_folder(tmp_path / "set", {"ant": 3, "bee": 2}))
    assert find_format(tmp_path / "set") == "images" and len(data.episodes) == 5
    label = data.columns["extra.label"]
    assert (label.n, label.labels) == (2, ("ant", "bee"))
    assert data.columns["obs.image"].shape == (3, 12, 12)
    assert brightness(data) == {0, 1, 2, 20, 21}
    assert data.episodes.about(3)["file"].endswith("bee/bee_0.png")


def test_images_without_classes_have_no_label(tmp_path: Path) -> None:
    image_folder(tmp_path, {"all": 3})
    data = opened(tmp_path / "all")
    assert "extra.label" not in data.columns and len(data.episodes) == 3
    grey = open_recorded(tmp_path / "all", options={"channels": 1})
    assert grey.columns["obs.image"].shape == (1, 12, 12) and grey[2]["obs.image"][0, 0, 0, 0] == 2


def test_a_share_is_held_out_and_a_subset_kept(tmp_path: Path) -> None:
    path = image_folder(tmp_path / "set", {"ant": 10, "bee": 10})
    data = opened(path, validation=0.25)
    seen, unseen = brightness(data), brightness(data, held_out=True)
    assert len(seen) == 15 and len(unseen) == 5 and not seen & unseen
    listed = tmp_path / "some.txt"
    listed.write_text("ant/ant_1.png\nbee_9.png\n\nbee/bee_3\n")
    options = {"subset": str(listed)}
    assert brightness(opened(path, options=options)) == {1, 23, 29}
    listed.write_text("ant/ant_1.png\nant/cat.png")
    with pytest.raises(StorageError, match=r"names 1 images that are not in .*'ant/cat.png'"):
        opened(path, options=options)


def test_the_layout_of_imagenet(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"n01": 2, "n02": 2}, kind="JPEG")
    image_folder(tmp_path / "val", {"n01": 4, "n02": 4}, kind="JPEG")
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01 tench, Tinca\nn02 goldfish\n")
    data = opened(tmp_path)
    assert data.columns["extra.label"].labels == ("tench, Tinca", "goldfish")
    assert brightness(data) == {0, 1, 20, 21}
    assert brightness(data, held_out=True) == {0, 1, 2, 3, 20, 21, 22, 23}
    assert len(opened(tmp_path, validation=0.0).held_out_numbers) == 0, "a share is asked for"
    (tmp_path / "val" / "n03").mkdir()
    with pytest.raises(StorageError, match="val has the classes n03, which"):
        opened(tmp_path)


def test_a_validation_folder_needs_the_same_classes(tmp_path: Path) -> None:
    first = image_folder(tmp_path / "a", {"ant": 2, "bee": 2})
    other = image_folder(tmp_path / "b", {"ant": 2, "cat": 2})
    with pytest.raises(ConfigError, match=r"its column 'extra.label' is .*'cat'.*same choices"):
        opened(first, validation=str(other))


def test_what_is_no_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = image_folder(tmp_path / "set", {"ant": 2})
    file = path / "ant" / "ant_1.png"
    file.write_bytes(file.read_bytes()[:40])
    data = opened(path)
    with pytest.raises(StorageError, match=r"ant_1.png cannot be read as an image"):
        brightness(data)


def test_cifar_in_the_binary_layout(tmp_path: Path) -> None:
    images, labels = draw_shapes(60, 0)
    names = "\n".join(CLASSES)
    for part in range(2):
        own = slice(25 * part, 25 * part + 25)
        rows = np.concatenate([labels[own, None].astype(np.uint8), images[own].reshape(25, -1)], 1)
        (tmp_path / f"data_batch_{part + 1}.bin").write_bytes(rows.tobytes())
    rest = np.concatenate([labels[50:, None].astype(np.uint8), images[50:].reshape(10, -1)], 1)
    (tmp_path / "test_batch.bin").write_bytes(rest.tobytes())
    (tmp_path / "batches.meta.txt").write_text(names)
    data = open_data(DataConfig(path=str(tmp_path)), 0)
    assert find_format(tmp_path) == "cifar" and data.columns["extra.label"].labels == CLASSES
    assert (len(data.episodes), len(data.held_out)) == (50, 10)
    for number in (0, 24, 25, 49):
        episode = data.episodes[number]
        assert np.array_equal(episode["obs.image"][0], images[number])
        assert episode["extra.label"].tolist() == [labels[number]]
    assert np.array_equal(data.held_out[3]["obs.image"][0], images[53])
    (tmp_path / "data_batch_2.bin").write_bytes(b"0" * 3074)
    with pytest.raises(
        StorageError, match=r"data_batch_2.bin is damaged: .* whole records of 3073"
    ):
        open_data(DataConfig(path=str(tmp_path)), 0)


def test_cifar_100_has_fine_labels(tmp_path: Path) -> None:
    record = np.concatenate([[4, 1], np.arange(3072) % 256]).astype(np.uint8)
    (tmp_path / "train.bin").write_bytes(record.tobytes())
    (tmp_path / "fine_label_names.txt").write_text("apple\nbaby\n")
    found = open_recorded(tmp_path)
    assert found[0]["extra.label"][0] == 1 and found[0]["obs.image"][0, 0, 0, 5] == 5
    record[1] = 2
    (tmp_path / "train.bin").write_bytes(record.tobytes())
    with pytest.raises(StorageError, match="image 0 has the label 2, there are 2 classes"):
        open_recorded(tmp_path)[0]


def test_pickled_cifar_is_refused_without_being_read(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(StorageError, match=r"is pickled.*Get the binary version"):
        open_recorded(tmp_path)
    assert not (tmp_path / "ran").exists()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_drawn_shapes_are_written_and_found_again(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["shapes", str(tmp_path / "s"), "--images", "30", "--held-out",
                                    "6", "--classes", "3"])  # fmt: skip
    assert "30 images to train on, 6 for validation" in said.output
    data = open_data(DataConfig(path=str(tmp_path / "s")), 0)
    assert (len(data.episodes), len(data.held_out)) == (30, 6)
    assert data.columns["extra.label"].labels == CLASSES[:3]
    write_shapes(tmp_path / "t", 30, 6, classes=3)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "t" / name).read_bytes()
    with pytest.raises(StorageError, match="already exists"):
        write_shapes(tmp_path / "t")

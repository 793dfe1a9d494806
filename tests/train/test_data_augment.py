"""Augmentations: what they do to pixels, that they follow from a key, and their held-out form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from worldflux.columns import step_columns
from worldflux.core.episode_source import EpisodeSource
from worldflux.errors import ConfigError, ContractError
from worldflux.specs import TensorSpec
from worldflux.training import Phase
from worldflux_train.config import DataConfig
from worldflux_train.data.augment import NAMES, Augmentations, augmentations

COLUMNS = step_columns({"image": TensorSpec((3, 40, 60), "uint8", low=0, high=255)})
KEY = (0, 1, 2, 3)
ALL = [
    {"random_resized_crop": {"size": 24}}, "horizontal_flip", "colour_jitter",
    {"blur": {"chance": 1.0}},
]  # fmt: skip


def picture(rows: int = 1, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Smooth images whose red grows to the right, green downwards, blue with the row."""
    x, y = np.meshgrid(np.linspace(0, 255, size[1]), np.linspace(0, 255, size[0]))
    frames = [np.stack([x, y, np.full_like(x, 10 * t)]) for t in range(rows)]
    return np.stack(frames).astype(np.uint8)


def apply(
    items: list[Any], rows: np.ndarray, key: tuple[int, ...] = KEY, fixed: bool = False
) -> Any:
    return Augmentations(augmentations(items), COLUMNS, fixed).apply("obs.image", rows, key)


def test_what_is_drawn_follows_from_the_key_and_is_the_same_for_a_whole_sample() -> None:
    rows = np.repeat(picture(), 5, 0)
    made = apply(ALL, rows)
    assert made.shape == (5, 3, 24, 24) and made.dtype == np.uint8
    assert (made == made[:1]).all(), "all images of a sample are changed alike"
    assert np.array_equal(made, apply(ALL, rows)) and np.array_equal(made[:2], apply(ALL, rows[:2]))
    for place in range(4):
        other = tuple(n + (i == place) for i, n in enumerate(KEY))
        assert not np.array_equal(made, apply(ALL, rows, other))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_held_out_images_are_changed_without_chance(name: str) -> None:
    sized = "crop" in name or name == "resize"
    item = {name: {"size": 24}} if sized else name
    made = [apply([item], picture(2), key, fixed=True) for key in (KEY, (9, 9, 9, 9))]
    assert np.array_equal(*made)
    if not sized:
        assert np.array_equal(made[0], picture(2))
    elif name != "resize":
        assert abs(float(made[0].mean()) - float(picture(2).mean())) < 4, "the middle is kept"


def test_columns_are_those_afterwards() -> None:
    found = Augmentations(augmentations([{"resize": {"size": 20}}]), COLUMNS).columns(COLUMNS)
    assert found["obs.image"].shape == (3, 20, 30) and found["is_first"] == COLUMNS["is_first"]
    steps = augmentations([{"resize": {"size": 20}}, {"centre_crop": {"size": 16}}])
    assert Augmentations(steps, COLUMNS).columns(COLUMNS)["obs.image"].shape == (3, 16, 16)


def test_a_flip_mirrors_and_sometimes_does_not() -> None:
    rows = picture()
    found = [apply(["horizontal_flip"], rows, (0, 0, 0, n)) for n in range(60)]
    mirrored = [np.array_equal(x, rows[..., ::-1]) for x in found]
    plain = [np.array_equal(x, rows) for x in found]
    assert sum(mirrored) + sum(plain) == 60 and 15 < sum(mirrored) < 45
    assert np.array_equal(apply([{"horizontal_flip": {"chance": 1.0}}], rows), rows[..., ::-1])


def test_a_random_resized_crop_takes_the_asked_share_of_the_image() -> None:
    item = {"random_resized_crop": {"size": 24, "scale": [0.25, 0.25], "ratio": [1.0, 1.0]}}
    corners = set()
    for n in range(30):
        made = apply([item], picture(), (0, 0, 0, n))[0].astype(float)
        share = np.ptp(made[0]) / 255 * np.ptp(made[1]) / 255  # width * height, from the colours
        assert share == pytest.approx(0.25, abs=0.04)
        corners.add((round(made[0, 0, 0] / 20), round(made[1, 0, 0] / 20)))
    assert len(corners) > 15
    long = apply([{"random_resized_crop": {"size": 8, "scale": [1.0, 1.0]}}], picture(1, (4, 60)))
    assert long.shape == (1, 3, 8, 8) and 100 < long[0, 0].mean() < 155, "the middle of a long one"


def test_a_crop_with_padding_moves_by_at_most_as_much() -> None:
    rows, item = picture(1, (32, 32)), {"random_crop": {"size": 32, "padding": 4}}
    lefts = {int(apply([item], rows, (0, 0, 0, n))[0, 0, 0, 16]) for n in range(80)}
    assert len(lefts) == 9 and 63 < max(lefts) - min(lefts) < 69, "4 pixels of 255/31 either way"
    small = apply([{"random_crop": {"size": 48}}], rows)
    assert small.shape == (1, 3, 48, 48), "scaled up where it is too small"


def test_jitter_changes_what_it_is_asked_to() -> None:
    def only(**amount: float) -> dict[str, Any]:
        none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
        return {"colour_jitter": {**none, **amount}}

    rows = picture() // 2 + 40
    assert np.array_equal(apply([only()], rows), rows)
    bright = apply([only(brightness=0.5)], rows)
    factor = bright[0, 0, 0, -1] / rows[0, 0, 0, -1]
    assert 0.5 <= factor <= 1.5 and np.abs(bright - rows * factor).max() <= 1.5
    contrast = apply([only(contrast=0.9)], rows).astype(float)
    assert abs(contrast.mean() - rows.mean()) < 8 and contrast.std() != pytest.approx(
        rows.std(), 0.01
    )
    grey = rows.mean(1, keepdims=True).repeat(3, 1).astype(np.uint8)
    assert np.array_equal(apply([only(saturation=0.9)], grey), grey)
    assert np.array_equal(apply([only(hue=0.5)], grey), grey)
    assert not np.array_equal(apply([only(hue=0.5)], rows), rows)
    assert np.array_equal(apply([only(hue=0.5)], rows[:, :1]), rows[:, :1]), "grey has no hue"


def test_blur_smooths_and_keeps_the_mean() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, 40, 60), np.uint8)
    made = apply([{"blur": {"low": 1.0, "high": 2.0, "chance": 1.0}}], noise)
    assert made.std() < 0.5 * noise.std() and abs(made.mean() - noise.mean()) < 3
    assert np.array_equal(apply([{"blur": {"chance": 0.0}}], noise), noise)


def test_stacked_frames_are_images_too() -> None:
    columns = step_columns({"image": TensorSpec((12, 40, 60), "uint8")})
    rows = np.tile(picture(), (1, 4, 1, 1))
    steps = augmentations(ALL)
    made = Augmentations(steps, columns).apply("obs.image", rows, KEY)
    assert made.shape == (1, 12, 24, 24)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("horizontal_flop", "no augmentation 'horizontal_flop'. Did you mean 'horizontal_flip'"),
        ({"resize": {"size": 0}}, "resize.size: .*greater than or equal to 1, got 0"),
        ({"resize": {"sise": 3}}, "resize has no key 'sise'. Did you mean 'size'"),
        ({"blur": None, "resize": None}, "one name with its settings"),
        ({"horizontal_flip": {"chance": 2}}, "less than or equal to 1, got 2"),
    ],
)
def test_what_does_not_exist_is_named(item: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        augmentations([item])


def images_of(sizes: list[tuple[int, int]], **options: Any) -> EpisodeSource:
    """A source of images of one row each, of these sizes."""
    episodes = [
        {"obs.image": picture(1, size), "is_first": np.ones(1, bool), "is_last": np.ones(1, bool),
         "is_terminal": np.zeros(1, bool)}
        for size in sizes
    ]  # fmt: skip
    columns = step_columns({"image": TensorSpec((3, 24, 24), "uint8")})
    return EpisodeSource(episodes, columns, **options)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_source_augments_by_update_and_row_whoever_reads(workers: int) -> None:
    augment = Augmentations(augmentations(ALL), COLUMNS)
    source = images_of([(40, 60), (30, 30), (50, 26)], augment=augment, workers=workers, seed=5)
    phase = Phase("p", 6, 1)
    batches = [source.read(source.choose(phase, update)).obs["image"] for update in (0, 1)]
    assert batches[0].shape == (6, 1, 3, 24, 24) and not torch.equal(*batches)
    plain = images_of([(40, 60), (30, 30), (50, 26)], augment=augment, seed=5)
    segments = plain.choose(phase, 0)
    assert torch.equal(plain.read(segments).obs["image"], batches[0])
    part = plain.read(segments.rows(np.array([4, 2]))).obs["image"]
    assert torch.equal(part, batches[0][[4, 2]]), "a part of a batch is augmented as in the whole"


def test_images_of_another_size_are_refused_by_name() -> None:
    source = images_of([(24, 24), (24, 25)])
    with pytest.raises(
        ContractError, match=r"Episode 1: 'obs.image' has the shape \(3, 24, 25\).*data.augment"
    ):
        source.read(source.choose(Phase("p", 12, 1), 0))


def test_statistics_are_of_images_as_they_are_held_out() -> None:
    steps = augmentations([{"centre_crop": {"size": 24}}])
    source = images_of([(40, 60), (30, 30)], augment=Augmentations(steps, COLUMNS, fixed=True))
    found = source.statistics("obs.image")
    assert found.count == 2 and found.mean.shape == (3, 1, 1)


def test_a_configuration_takes_names_and_settings() -> None:
    found = DataConfig(path="x", augment=["horizontal_flip", {"resize": {"size": 8}}])
    assert len(augmentations(found.augment)) == 2
    assert DataConfig(**found.to_dict()) == found

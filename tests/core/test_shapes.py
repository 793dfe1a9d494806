"""Drawn shapes: the same by seed, every class as often, and told apart by form alone."""

from __future__ import annotations

import numpy as np
import pytest

from worldflux.errors import ContractError
from worldflux.shapes import CLASSES, draw_shapes


def test_the_arguments_decide_the_images() -> None:
    images, labels = draw_shapes(40, 3, classes=4)
    again, other = draw_shapes(40, 3, classes=4), draw_shapes(40, 4, classes=4)
    assert images.shape == (40, 3, 32, 32) and images.dtype == np.uint8
    assert np.array_equal(images, again[0]) and np.array_equal(labels, again[1])
    assert not np.array_equal(images, other[0])
    assert np.bincount(labels).tolist() == [10] * 4


def nearest(classes: int = len(CLASSES)) -> float:
    """The share of images whose nearest other image, colours taken away, is of its class."""
    images, labels = draw_shapes(1500, 0, classes=classes)
    flat = images.astype(float).mean(1).reshape(len(images), -1)
    flat = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
    near = (flat[:300] @ flat[300:].T).argmax(1)
    return float((labels[300:][near] == labels[:300]).mean())


def test_the_form_tells_the_class_and_the_colour_does_not() -> None:
    assert nearest() > 0.7
    images, labels = draw_shapes(4000, 1)
    colour = images.mean((2, 3))
    means = np.stack([colour[labels == label].mean(0) for label in range(10)])
    assert means.std(0).max() < 0.4 * colour.std(0).min()


def test_other_sizes_and_what_is_refused() -> None:
    assert draw_shapes(6, 0, size=16, channels=1, turned=True)[0].shape == (6, 1, 16, 16)
    for wrong in ({"classes": 11}, {"classes": 0}, {"size": 4}):
        with pytest.raises(ContractError, match="There are 10 classes; the smallest size is 8"):
            draw_shapes(6, 0, **wrong)  # type: ignore[arg-type]

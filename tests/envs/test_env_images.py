"""Resizing against torch's own filters."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from worldflux.errors import EnvError
from worldflux_envs.images import resize, weights

SIZES = [((12, 8), (6, 4)), ((210, 160), (64, 64)), ((5, 7), (11, 3)), ((8, 8), (16, 24))]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_bilinear_is_torchs_antialiased(source, target):
    image = np.random.default_rng(0).uniform(0, 255, (3, *source))
    expected = interpolate(
        torch.from_numpy(image)[None], target, mode="bilinear", antialias=True, align_corners=False
    )[0]
    assert np.allclose(resize(image, target, "bilinear"), expected.numpy(), atol=1e-6)


def test_area_is_the_mean_of_what_each_pixel_covers():
    image = np.random.default_rng(0).uniform(0, 1, (12, 8))
    expected = interpolate(torch.from_numpy(image)[None, None], (4, 2), mode="area")[0, 0]
    assert np.allclose(resize(image, (4, 2)), expected.numpy())
    # Three pixels onto two: the middle one is shared.
    assert np.allclose(resize(np.array([[3.0, 6.0, 9.0]]), (1, 2)), [[4.0, 8.0]])


@pytest.mark.parametrize("method", ["area", "bilinear"])
def test_shares_sum_to_one_and_flat_images_stay_flat(method):
    assert np.allclose(weights(210, 64, method).sum(axis=1), 1)
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        flat = resize(np.full((1, 30, 20), 100, dtype), (7, 9), method)
        assert flat.dtype == dtype and np.allclose(flat, 100)
    assert resize(np.ones((4, 4), bool), (2, 2), method).tolist() == [[True, True], [True, True]]


def test_integers_are_rounded_and_the_same_size_is_a_copy():
    assert resize(np.array([[0, 255]], np.uint8), (1, 1)).tolist() == [[128]]
    image = np.zeros((2, 2), np.uint8)
    assert resize(image, (2, 2)) is not image


def test_an_unknown_filter_is_refused():
    with pytest.raises(EnvError, match=r"no filter 'cubic': choose one of area, bilinear"):
        resize(np.zeros((4, 4)), (2, 2), "cubic")

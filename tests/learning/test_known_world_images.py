"""Families that take 64x64 images learn the known world from them: too long for every change."""

from __future__ import annotations

import pytest

from worldflux import get_model_spec
from worldflux.testing.family import check_family_learns
from worldflux.testing.line_world import LARGE_IMAGE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "family", ["dreamerv3", "dreamerv2", "dreamerv1", "planet", "rssm", "tdmpc2"]
)
def test_a_family_learns_from_images(family: str) -> None:
    check_family_learns(get_model_spec(family), LARGE_IMAGE)

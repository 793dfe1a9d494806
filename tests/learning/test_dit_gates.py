"""DiT learns drawn shapes: samples look like the class that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worldflux_train.api import train
from worldflux_train.config import resolve
from worldflux_train.data.drawn import write_shapes

pytestmark = pytest.mark.slow
UPDATES = 2500


def share(tmp_path: Path, seed: int, **overrides: Any) -> float:
    """Samples whose nearest held-out image has their label, with the final averaged weights."""
    data = write_shapes(tmp_path / "shapes", 4000, 800, classes=4)
    common = {"data.path": str(data), "train.eval_every": 0, "train.seed": seed}
    config = resolve("dit:tiny", overrides={**common, **overrides}, steps=UPDATES)
    rows = train(config, tmp_path / "run").run.metrics()
    name = "eval/samples/nearest_label"
    return next(float(row[name]) for row in reversed(rows) if name in row)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_samples_have_their_class(seed: int, tmp_path: Path) -> None:
    assert share(tmp_path, seed) >= 0.8


def test_without_labels_they_have_not(tmp_path: Path) -> None:
    """The control: every label is left out in training; one in four is right by chance."""
    assert share(tmp_path, 0, **{"model.class_dropout": 1.0, "agent.average": 0.9}) < 0.5

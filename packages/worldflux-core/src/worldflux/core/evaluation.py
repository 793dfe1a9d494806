"""How good a learner is on data that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """A `score`, higher is better, None where there is no such number; metrics by name.

    The newest checkpoint is the best of a run without a score. `pictures` are uint8 images
    (Y, X, 3) or videos (T, Y, X, 3).
    """

    score: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, NDArray[Any]] = field(default_factory=dict)

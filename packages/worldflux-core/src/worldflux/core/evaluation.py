"""How good a learner is on data that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from worldflux.core.batch import Batch
from worldflux.core.source import Source
from worldflux.training import Phase


@dataclass(frozen=True)
class Evaluation:
    """A `score`, higher is better, None where there is no such number; metrics by name.

    The newest checkpoint is the best of a run without a score. `pictures` are uint8 images
    (Y, X, 3) or videos (T, Y, X, 3).
    """

    score: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def held_out_batches(source: Source, phase: Phase, limit: int) -> Iterator[Batch]:
    """At most `limit` Batches of a phase; none where no sequence of it can be had."""
    for update in range(limit if source.ready(replace(phase, minimum=1)) else 0):
        yield source.read(source.choose(phase, update))

"""A learner evaluated on data that it was not trained on, and what is kept of that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.evaluation import Evaluation
from worldflux.core.rand import Rand
from worldflux.core.source import Segments, Source
from worldflux.episodes import Episode
from worldflux.errors import ConfigError
from worldflux.nn.modes import evaluating
from worldflux_train.data.around import SourceAround
from worldflux_train.data.opened import Opened

logger = logging.getLogger(__name__)


class Counted(SourceAround):
    """A `Source` that tells how many of at most `most` batches were read."""

    def __init__(self, source: Source, tell: Callable[[int, int], None], most: int) -> None:
        super().__init__(source)
        self.tell, self.most, self.done = tell, most, 0

    def read(self, segments: Segments) -> Batch:
        """The batch of these segments."""
        batch = self.source.read(segments)
        self.done += 1
        if self.done < self.most:  # the end is told when the results are there
            self.tell(self.done, self.most)
        return batch


def evaluated_on_held_out(
    learner: Learner,
    data: Opened,
    rand: Rand,
    device: torch.device,
    limit: int,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Evaluation | None:
    """`Learner.evaluate` on held-out data with the published weights; None if none is held out.

    `limit` is the most batches of each phase; `tell` hears how many of how many were read.
    """
    source = data.validation(learner.columns, device)
    if source is None:
        return None
    with torch.no_grad(), evaluating(learner), learner.as_published():
        counted = Counted(source, tell, limit * len(learner.training_plan().phases))
        found = learner.evaluate(counted, rand, limit)
        tell(counted.most, counted.most)
    return found


def row_of(found: Evaluation) -> dict[str, Any]:
    """As a row of metrics: `eval/score`, where there is one, and `eval/...`."""
    score = {} if found.score is None else {"eval/score": found.score}
    return {**score, **{f"eval/{key}": value for key, value in found.metrics.items()}}


def require_held_out(data: Opened) -> None:
    """Raise `ConfigError` unless some data is held out."""
    if not len(data.held_out_numbers):
        raise ConfigError(
            "This run holds no data out (data.validation), so there is none to judge it on. "
            "Train with data.validation set to a share, such as 0.1, or to a folder of episodes."
        )


def held_out_episodes(data: Opened, count: int, most_steps: int, seed: int) -> list[Episode]:
    """At most `count` held-out episodes, drawn by `seed`, each cut after `most_steps`.

    Of a run that holds none out, episodes that it was trained on; the log says so.
    """
    numbers, held_out = data.held_out_numbers, True
    if not len(numbers):
        logger.warning("No data is held out: the model imagines what it was trained on.")
        numbers, held_out = data.numbers, False
    chosen = np.random.default_rng(seed).permutation(len(numbers))[:count]
    return [data.shown(int(numbers[int(i)]), most_steps + 1, held_out) for i in chosen]

"""Known episodes, and a source over a list of them, for tests of anything that takes a Source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from worldflux.columns import ACTION, FLAGS, REWARD, Columns
from worldflux.core.batch import Batch
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.source import Source
from worldflux.episodes import Episode, check_episode
from worldflux.training import Phase


def counted_episode(columns: Columns, rows: int, number: int = 0) -> Episode:
    """An episode whose values tell where they are: row t of episode n holds 100 n + t + 1.

    Discrete columns and bytes hold what is left of that number; the reward of row 0 and the action
    of the last row are 0; it ends by termination if `number` is odd.
    """
    step = np.arange(rows)
    episode: Episode = {}
    for name, spec in columns.items():
        if name not in FLAGS:
            most = min(spec.counts) if spec.discrete else 251
            value = 100 * number + step + 1
            value = value % most if spec.discrete or spec.dtype == "uint8" else value
            shaped = value.reshape(rows, *(1,) * len(spec.shape))
            episode[name] = np.broadcast_to(shaped, (rows, *spec.shape)).astype(spec.dtype)
    last = step == rows - 1
    episode |= dict(zip(FLAGS, (step == 0, last, last & bool(number % 2)), strict=True))
    if REWARD in episode:
        episode[REWARD][0] = 0
    if ACTION in episode:
        episode[ACTION][-1] = 0
    check_episode(columns, episode)
    return episode


def list_source(
    columns: Columns, lengths: Sequence[int], *, seed: int = 0, name: str = "data"
) -> EpisodeSource:
    """A source over counted episodes of these lengths, in rows."""
    made = [counted_episode(columns, rows, number) for number, rows in enumerate(lengths)]
    return EpisodeSource(made, columns, seed=seed, name=name)


def sampled(
    source: Source, batch: int, length: int, context: int = 0, *, update: int = 0, **options: Any
) -> Batch:
    """What `source` gives for an update of a phase with these sizes and other fields of `Phase`."""
    phase = Phase("sampled", batch, length, context=context, **options)
    return source.read(source.choose(phase, update))

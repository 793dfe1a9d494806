"""Known episodes, and a source over a list of them, for tests of anything that takes a Source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldflux.columns import ACTION, FLAGS, OBS, REWARD, Columns
from worldflux.core.episode_source import EpisodeSource
from worldflux.episodes import Episode, check_episode


def counted_episode(columns: Columns, rows: int, number: int = 0) -> Episode:
    """An episode whose values tell where they are: row t of episode n holds 100 n + t + 1.

    Discrete columns and bytes hold what is left of that number; the reward of row 0 and the action
    of the last row are 0; it ends by termination if `number` is odd.
    """
    step = np.arange(rows)
    episode: Episode = {}
    for name, spec in columns.items():
        if name.startswith(OBS) or name not in FLAGS:
            most = min(spec.counts) if spec.discrete else 251
            value = 100 * number + step + 1
            value = value % most if spec.discrete or spec.dtype == "uint8" else value
            shaped = value.reshape(rows, *(1,) * len(spec.shape))
            episode[name] = np.broadcast_to(shaped, (rows, *spec.shape)).astype(spec.dtype)
    episode |= dict(zip(FLAGS, (step == 0, step == rows - 1, step == rows - 1), strict=True))
    episode[FLAGS[2]] = episode[FLAGS[2]] & bool(number % 2)
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

"""Recorded episodes into a replay."""

from __future__ import annotations

from collections.abc import Iterable

from worldflux.columns import Rows
from worldflux.episodes import rows_of
from worldflux_train.replay.replay import Replay


def load_episodes(replay: Replay, episodes: Iterable[Rows]) -> int:
    """Put every episode into the emptiest ring; steps read. Columns not kept are left out.

    `episodes` may be `worldflux.episodes.Episodes` or any episodes in that form.
    """
    steps = 0
    for episode in episodes:
        kept = {name: value for name, value in episode.items() if name in replay.columns}
        replay.extend(kept, int(replay.lanes.count.argmin()))
        steps += rows_of(episode)
    return steps

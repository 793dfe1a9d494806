"""Whole evaluated episodes as videos: of a run's evaluations, and of `worldflux eval --video`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.columns import OBS
from worldflux.core.agent import Agent
from worldflux.episodes import Episode
from worldflux.errors import CapabilityError
from worldflux.runs import Run
from worldflux_train.config import RunConfig
from worldflux_train.evaluation import start_seed
from worldflux_train.evaluation_pictures import save_pictures
from worldflux_train.recording import PICTURE, record_episodes
from worldflux_train.seeding import derived

Video = NDArray[np.uint8]


def evaluation_videos(
    config: RunConfig, agent: Agent, run: Run, tick: int, stop: Callable[[], bool]
) -> dict[str, Video]:
    """Play the first `train.eval_videos` evaluated episodes once more, and save them in the run.

    They are called `evaluation-<tick>-episode-<n>.mp4`. The videos (T, Y, X, 3) by name.
    """
    settings = config.train
    seed = derived(settings.seed, "evaluation")
    seeds = [start_seed(seed, number) for number in range(settings.eval_videos)]
    try:
        found = record_episodes(
            config, agent, len(seeds), settings.eval_max_steps, seed, stop=stop, seeds=seeds
        )
    except KeyboardInterrupt:  # the evaluation itself is complete: the loop sees the signal next
        return {}
    return save_videos(run, tick, found)


def save_videos(run: Run, tick: int, episodes: Sequence[Episode]) -> dict[str, Video]:
    """Write recorded episodes as videos; `CapabilityError` where nothing can be seen of them."""
    videos = {f"episode-{n}": frames_of(episode) for n, episode in enumerate(episodes)}
    save_pictures(run, tick, videos)
    return videos


def frames_of(episode: Mapping[str, Any]) -> Video:
    """What an episode looks like, (T, Y, X, 3): as its environment draws it, else its image."""
    if PICTURE in episode:
        return np.asarray(episode[PICTURE])
    for key, values in episode.items():
        if key.startswith(OBS) and values.ndim == 4 and values.dtype == np.uint8:
            channels = values[:, -3:] if values.shape[1] % 3 == 0 else values[:, -1:].repeat(3, 1)
            return np.ascontiguousarray(channels.transpose(0, 2, 3, 1))
    raise CapabilityError(
        "There is nothing to make a video of: the environment draws no pictures of itself, and "
        "none of its observations is an image. Leave out --video and train.eval_videos."
    )

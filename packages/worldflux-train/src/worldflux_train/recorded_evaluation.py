"""Evaluated episodes that are kept, step by step."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from worldflux.columns import REWARD
from worldflux.core.agent import Agent
from worldflux.errors import ConfigError, did_you_mean
from worldflux_train.config import RunConfig
from worldflux_train.evaluation import Evaluation, start_seed
from worldflux_train.recording import PICTURE, record_episodes

KEPT = ("frames", "latents")


def recorded_evaluation(
    config: RunConfig,
    agent: Agent,
    count: int,
    seed: int,
    keep: Collection[str],
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """`count` episodes as `evaluate` would start them, one after another, with their steps.

    `KeyboardInterrupt` as soon as `stop` is true.
    """
    for name in [keep] if isinstance(keep, str) else keep:
        if isinstance(keep, str) or name not in KEPT:
            raise ConfigError(
                f"keep={keep!r} is a tuple of what is kept: {', '.join(KEPT)}."
                f"{did_you_mean(name, KEPT)}"
            )
    most = config.train.eval_max_steps
    episodes = record_episodes(
        config, agent, count, most, seed, stop=stop, latents="latents" in keep,
        seeds=[start_seed(seed, number) for number in range(count)],
    )  # fmt: skip
    if "frames" not in keep:
        for episode in episodes:
            episode.pop(PICTURE, None)
    returns = [float(np.sum(episode[REWARD], dtype=np.float64)) for episode in episodes]
    lengths = [len(episode[REWARD]) - 1 for episode in episodes]
    cut = sum(length >= most for length in lengths)
    return Evaluation(returns, lengths, cut, episodes)

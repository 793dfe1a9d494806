"""A run's data: the episodes it trains on and those held out, from `data.*`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from worldflux.columns import Columns
from worldflux.core.episode_source import EpisodeSource
from worldflux.episodes import ABOUT, Episodes
from worldflux.errors import ConfigError, StorageError
from worldflux_train.config import DataConfig
from worldflux_train.seeding import derived


@dataclass(frozen=True)
class Opened:
    """Episodes on disk, and which of them are trained on; `validation` is never trained on."""

    episodes: Episodes
    numbers: Sequence[int]
    held_out: Episodes
    held_out_numbers: Sequence[int]
    workers: int
    seed: int

    @property
    def columns(self) -> Columns:
        """What a step of the data holds."""
        return self.episodes.columns

    def longest(self) -> int:
        """Steps (actions) of the longest episode."""
        return int(self.episodes.lengths.max()) - 1

    def source(self, columns: Columns, device: torch.device) -> EpisodeSource:
        """What is trained on, as steps of a learner that needs `columns`."""
        return EpisodeSource(
            self.episodes, columns, seed=self.seed, numbers=self.numbers, device=device,
            workers=self.workers,
        )  # fmt: skip

    def validation(self, columns: Columns, device: torch.device) -> EpisodeSource | None:
        """What is held out; None without any."""
        if not len(self.held_out_numbers):
            return None
        return EpisodeSource(
            self.held_out, columns, seed=self.seed, name="validation",
            numbers=self.held_out_numbers, device=device, workers=self.workers,
        )  # fmt: skip


def open_data(data: DataConfig, seed: int) -> Opened:
    """The episodes in `data.path`; `data.validation` of them, drawn by `seed`, are held out."""
    episodes = _episodes("data.path", str(data.path))
    source_seed = derived(seed, "data")
    if isinstance(data.validation, str):
        held_out = _episodes("data.validation", data.validation)
        if Path(data.validation).resolve() == Path(str(data.path)).resolve():
            raise ConfigError(
                f"data.validation={data.validation} is data.path itself: what is trained on cannot "
                "be held out. Give another folder, or a share such as 0.1."
            )
        every, held = range(len(episodes)), range(len(held_out))
        return Opened(episodes, every, held_out, held, data.workers, source_seed)
    order = np.random.default_rng(derived(seed, "held out")).permutation(len(episodes))
    count = 0
    if data.validation:
        count = max(1, round(data.validation * len(episodes)))
    if count >= len(episodes):
        raise ConfigError(
            f"data.validation={data.validation} of {len(episodes)} episodes in {data.path} leaves "
            "none to train on. Give more episodes, a smaller share, or a folder of its own."
        )
    held_numbers, numbers = sorted(order[:count].tolist()), sorted(order[count:].tolist())
    return Opened(episodes, numbers, episodes, held_numbers, data.workers, source_seed)


def _episodes(key: str, path: str) -> Episodes:
    folder = Path(path)
    if not (folder / ABOUT).is_file():
        found = sorted(inner.parent.name for inner in folder.glob(f"*/{ABOUT}"))
        inside = f" Below it: {', '.join(found)}." if found else ""
        raise StorageError(
            f"{key}={path} holds no episodes: there is no {ABOUT}.{inside} Give a folder that the "
            "episode recorder wrote."
        )
    episodes = Episodes(folder, verify=False)
    if not len(episodes):
        raise StorageError(f"{key}={path} holds no finished episode.")
    return episodes

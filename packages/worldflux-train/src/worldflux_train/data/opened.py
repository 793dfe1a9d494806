"""A run's data: the episodes it trains on and those held out, from `data.*`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from worldflux.columns import Columns
from worldflux.core.episode_source import EpisodeSource
from worldflux.episodes import Episode
from worldflux.errors import ConfigError, StorageError
from worldflux.recorded import Recorded
from worldflux_train.config import DataConfig
from worldflux_train.data.augment import Augmentations, augmentations
from worldflux_train.data.formats import open_recorded
from worldflux_train.data.kept import Kept
from worldflux_train.seeding import derived


@dataclass(frozen=True)
class Opened:
    """Data on disk, and which of its episodes are trained on; `validation` is never trained on.

    `augment` changes what is trained on, `fixed` what is held out (without chance).
    """

    episodes: Recorded
    numbers: Sequence[int]
    held_out: Recorded
    held_out_numbers: Sequence[int]
    workers: int
    seed: int
    augment: Augmentations
    fixed: Augmentations
    path: Path
    skip_damaged: bool = False

    @property
    def columns(self) -> Columns:
        """What a step of the data holds, after what `data.augment` does to it."""
        return self.augment.columns(self.episodes.columns)

    def longest(self) -> int:
        """Steps (actions) of the longest episode."""
        return int(self.episodes.lengths.max()) - 1

    def source(self, columns: Columns, device: torch.device) -> EpisodeSource:
        """What is trained on, as steps of a learner that needs `columns`."""
        return EpisodeSource(
            self.episodes, columns, seed=self.seed, numbers=self.numbers, device=device,
            workers=self._threads(self.episodes),
            augment=self.augment if self.augment.steps else None, skip_damaged=self.skip_damaged,
            kept=Kept(self.path, self.episodes, self.numbers, self.augment),
        )  # fmt: skip

    def validation(self, columns: Columns, device: torch.device) -> EpisodeSource | None:
        """What is held out; None without any."""
        if not len(self.held_out_numbers):
            return None
        return EpisodeSource(
            self.held_out, columns, seed=self.seed, name="validation",
            numbers=self.held_out_numbers, device=device,
            workers=self._threads(self.held_out),
            augment=self.fixed if self.fixed.steps else None, skip_damaged=self.skip_damaged,
        )  # fmt: skip

    def _threads(self, data: Recorded) -> int:
        """Threads that read `data`: none where it is copied from memory as it is."""
        return self.workers if self.augment.steps or getattr(data, "threads", True) else 0

    def shown(self, number: int, most_rows: int, held_out: bool = True) -> Episode:
        """The first rows of an episode, in memory of their own, without chance."""
        whole = self.held_out if held_out else self.episodes
        cut = slice(0, most_rows)
        return {
            name: np.array(self.fixed.apply(name, whole.rows(number, name, cut), (0,)))
            for name in whole.columns
        }


def open_data(data: DataConfig, seed: int) -> Opened:
    """The data in `data.path`, and what of it is held out: as `data.validation` says."""
    episodes = _recorded("data.path", str(data.path), data)
    own = getattr(episodes, "held_out", None)
    if isinstance(data.validation, str):
        if Path(data.validation).resolve() == Path(str(data.path)).resolve():
            raise ConfigError(
                f"data.validation={data.validation} is data.path itself: what is trained on cannot "
                "be held out. Give another folder, or a share such as 0.1."
            )
        own = _recorded("data.validation", data.validation, data)
        _check_alike(episodes, own, data)
    elif data.validation is not None:
        own = None
    if own is not None:
        numbers, held_numbers = list(range(len(episodes))), list(range(len(own)))
    else:
        numbers, held_numbers = _shares(data, len(episodes), seed)
    steps = augmentations(data.augment)
    return Opened(
        episodes, numbers, episodes if own is None else own, held_numbers, data.workers,
        derived(seed, "data"), Augmentations(steps, episodes.columns),
        Augmentations(steps, episodes.columns, fixed=True), Path(str(data.path)),
        data.damaged == "skip",
    )  # fmt: skip


def _shares(data: DataConfig, episodes: int, seed: int) -> tuple[list[int], list[int]]:
    """The numbers trained on and those held out, drawn by `seed`."""
    order = np.random.default_rng(derived(seed, "held out")).permutation(episodes)
    count = max(1, round(float(data.validation) * episodes)) if data.validation else 0
    if count >= episodes:
        raise ConfigError(
            f"data.validation={data.validation} of {episodes} episodes in {data.path} leaves "
            "none to train on. Give more episodes, a smaller share, or a folder of its own."
        )
    return sorted(order[count:].tolist()), sorted(order[:count].tolist())


def _recorded(key: str, path: str, data: DataConfig) -> Recorded:
    try:
        found = open_recorded(path, data.format, {"damaged": data.damaged, **data.options})
    except StorageError as error:
        raise StorageError(f"{key}: {error}") from error
    if not len(found):
        raise StorageError(f"{key}={path} holds no finished episode.")
    return found


def _check_alike(episodes: Recorded, other: Recorded, data: DataConfig) -> None:
    """Raise `ConfigError` unless what is held out has the names and choices of the rest."""
    for name, spec in episodes.columns.items():
        own = other.columns.get(name)
        if own is None or (own.n, own.labels) != (spec.n, spec.labels):
            raise ConfigError(
                f"data.validation={data.validation}: its column {name!r} is "
                f"{None if own is None else own.to_json()}, that of {data.path} is "
                f"{spec.to_json()}. Both need the same choices in the same order."
            )

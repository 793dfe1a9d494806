"""Offline and online together: a source that joins the segments of others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from worldflux.columns import STORED, Columns, under
from worldflux.core.batch import Batch
from worldflux.core.source import Segments, Source
from worldflux.core.statistics import Statistics
from worldflux.errors import ConfigError
from worldflux.training import Phase
from worldflux_train.data.ahead import ReadAhead, chosen_alike

_STEPS = ("is_first", "is_last", "is_terminal", "action", "reward", "mask")


class Mixture:
    """Batches of which a share comes from "data" and the rest from "replay".

    Update u takes floor((u+1) f B) - floor(u f B) of its B rows from the data, f = `fraction`: on
    average the share is exact. A phase with a `source` of its own has that one alone. Values are
    written where their rows came from; a stored column that a part lacks is zero there, which is
    a model's initial state. Where the data is a `ReadAhead`, its part of the next batch is read
    ahead: it follows from the update alone, whatever the replay comes to hold.
    """

    def __init__(self, sources: Mapping[str, Source], fraction: float, columns: Columns) -> None:
        self.sources, self.columns = dict(sources), dict(columns)
        self.fraction = Fraction(fraction).limit_denominator(1_000_000)
        if not 0 < self.fraction < 1 or set(self.sources) != {"data", "replay"}:
            raise ConfigError(
                f"A mixture of {' and '.join(self.sources) or 'nothing'} with "
                f"train.data_fraction={fraction}: it takes data and replay, and a share between 0 "
                "and 1."
            )
        self._chosen: Segments | None = None

    def ready(self, phase: Phase) -> bool:
        return all(self.sources[name].ready(phase) for name in self._names(phase))

    def choose(self, phase: Phase, update: int) -> Segments:
        offline = self._offline_rows(phase, update)
        rows = {"data": offline, "replay": phase.batch - offline}
        chosen = [
            self.sources[name].choose(replace(phase, batch=count), update)
            for name, count in rows.items()
            if count
        ]
        self._chosen = Segments.cat(chosen)
        return self._chosen

    def read(self, segments: Segments) -> Batch:
        found, places = [], []
        for name, index, part in segments.by_source():
            source = self.sources[name]
            batch = source.taken(part) if isinstance(source, ReadAhead) else source.read(part)
            batch.index = self._named(name, batch)
            found.append(batch)
            places.append(index)
        if segments is self._chosen:
            self._read_ahead(segments.phase, segments.update + 1)
        order = np.argsort(np.concatenate(places), kind="stable")
        if len(found) == 1:
            return found[0]
        return self._joined(found, torch.from_numpy(order))

    def write(self, index: Tensor, values: Mapping[str, Tensor]) -> None:
        for place, source in enumerate(self.sources.values()):
            own = (index >= 0) & (index % len(self.sources) == place)
            rows = index.div(len(self.sources), rounding_mode="floor")
            source.write(torch.where(own, rows, -1), values)

    def statistics(self, column: str) -> Statistics:
        first, second = (source.statistics(column) for source in self.sources.values())
        return first.joined(second)

    def save(self, folder: Path) -> None:
        for name, source in self.sources.items():
            source.save(folder / name)

    def load(self, folder: Path) -> None:
        for name, source in self.sources.items():
            source.load(folder / name)

    def close(self) -> None:
        """Stop reading ahead."""
        for source in self.sources.values():
            if isinstance(source, ReadAhead):
                source.close()

    def _offline_rows(self, phase: Phase, update: int) -> int:
        """How many rows of an update come from the data."""
        if phase.source is not None:
            return phase.batch if phase.source == "data" else 0
        share = self.fraction * phase.batch
        return math.floor((update + 1) * share) - math.floor(update * share)

    def _read_ahead(self, phase: Phase, update: int) -> None:
        """Begin to read the data's part of an update, as `choose` and `read` will ask for it."""
        data, count = self.sources["data"], self._offline_rows(phase, update)
        if not isinstance(data, ReadAhead) or not count or not chosen_alike(phase):
            return
        part = data.choose(replace(phase, batch=count), update)
        data.prepare(replace(part, phase=phase, row=np.arange(count)))  # the data's rows are first

    def _names(self, phase: Phase) -> list[str]:
        return list(self.sources) if phase.source is None else [phase.source]

    def _named(self, name: str, batch: Batch) -> Tensor | None:
        """Names of rows over all sources: row * sources + the source's place; -1 stays."""
        if batch.index is None:
            return None
        place = list(self.sources).index(name)
        return torch.where(batch.index >= 0, batch.index * len(self.sources) + place, -1)

    def _joined(self, found: list[Batch], order: Tensor) -> Batch:
        def together(values: list[Tensor]) -> Tensor:
            return torch.cat(values)[order.to(values[0].device)]

        first = found[0]
        whole = replace(first, obs={}, stored={}, extra={})
        for name in (*_STEPS, "index"):
            values = [getattr(batch, name) for batch in found]
            if all(value is not None for value in values):
                setattr(whole, name, together(values))
        for key in first.obs:
            whole.obs[key] = together([batch.obs[key] for batch in found])
        for key in first.extra:
            whole.extra[key] = together([batch.extra[key] for batch in found])
        if first.context:
            for key, name in under(STORED, self.columns).items():
                whole.stored[key] = together([self._stored(batch, key, name) for batch in found])
        return whole

    def _stored(self, batch: Batch, key: str, name: str) -> Tensor:
        if key in batch.stored:
            return batch.stored[key]
        spec, first = self.columns[name], batch.is_first
        shape = (batch.batch_size, batch.context, *spec.shape)
        return torch.zeros(shape, dtype=getattr(torch, spec.dtype), device=first.device)

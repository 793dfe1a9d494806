"""The replay: fixed-size columns of steps, sampled as sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from worldflux.columns import (
    ACTION,
    FLAGS,
    REWARD,
    STORED,
    Columns,
    Rows,
    check_names,
    row_bytes,
    under,
)
from worldflux.core.batch import Batch
from worldflux.core.source import Segments, batch_of, steps_to_read
from worldflux.core.statistics import Statistics
from worldflux.core.windows import (
    Drawn,
    clipped,
    draw,
    possible,
    random_for,
    spanned,
)
from worldflux.episodes import check_episode, rows_of
from worldflux.errors import ConfigError, ContractError, did_you_mean
from worldflux.training import LeastSampled, Phase
from worldflux_train.replay.fresh import FreshQueue
from worldflux_train.replay.lanes import Lanes
from worldflux_train.replay.slices import Ints, Slices
from worldflux_train.replay.snapshot import Snapshot
from worldflux_train.replay.storage import DeviceStorage, HostStorage, Storage
from worldflux_train.replay.values import Array, stored_form, torch_dtype, zero_rows

_PIECE = 4096  # rows read at once for statistics
_POSITION_BYTES = 4  # each row's place in its episode, kept beside the columns


class Replay:
    """The last `capacity` steps of `num_envs` environments, each in a ring of its own.

    `columns` come from `worldflux.columns.step_columns`. Not for use from several threads: the
    loop appends, samples and saves at fixed points.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        capacity: int,
        num_envs: int = 1,
        seed: int = 0,
        online: bool = False,
        device: str | torch.device = "cpu",
        storage: Literal["memory", "disk", "device"] = "memory",
        folder: str | Path | None = None,
        name: str = "replay",
    ) -> None:
        """`capacity` counts steps over all environments; batches arrive on `device`.

        `storage="disk"` keeps the columns in memory-mapped files in `folder`,
        `storage="device"` keeps them on `device`. `online` delivers new steps once first.
        """
        if num_envs < 1 or capacity < 2 * num_envs:
            raise ConfigError(
                f"A replay of {capacity} steps is too small for {num_envs} environments. Use at "
                f"least {2 * max(num_envs, 1)}."
            )
        self.columns = dict(columns)
        self.lanes = Lanes(num_envs, capacity // num_envs)
        self.seed, self.name, self.drawn = seed, name, Drawn()
        self.shared: Path | None = None
        """Folder of blocks that saves share, where none is given to `save`."""
        self.fresh = FreshQueue(num_envs) if online else None
        self._storage = self._make(storage, torch.device(device), folder)
        self._snapshot = Snapshot(self.columns, self.lanes)
        self._read_lengths: dict[tuple[int, ...], Mapping[str, int]] = {}

    @staticmethod
    def bytes_for(columns: Columns, capacity: int) -> int:
        """Memory that `capacity` steps take, batches not counted."""
        return capacity * (row_bytes(columns) + _POSITION_BYTES)

    @staticmethod
    def steps_in(columns: Columns, nbytes: int) -> int:
        """The capacity that fits into `nbytes`."""
        return nbytes // (row_bytes(columns) + _POSITION_BYTES)

    @property
    def capacity(self) -> int:
        """Steps it can hold; a multiple of the number of environments."""
        return self.lanes.lanes * self.lanes.size

    def __len__(self) -> int:
        """Steps it holds."""
        return int(self.lanes.filled.sum())

    def append(
        self, rows: Mapping[str, Array | Tensor], mask: Array | Tensor | None = None
    ) -> Ints:
        """Add one step of each environment (num_envs, ...); the rows' names for `write`.

        Environments where `mask` is False had no step: their values are ignored, their name is
        -1. The action at `is_last` is kept as zero, whatever it was. A new episode that begins
        before the old one's last step makes the newest old step its last.
        """
        check_names(self.columns, rows, "Replay.append")
        count = self.lanes.lanes
        values = {
            name: stored_form(name, rows[name], spec, count) for name, spec in self.columns.items()
        }
        lane = np.arange(count)
        if mask is not None:
            lane = lane[np.asarray(mask, bool)]
            values = {name: value[lane] for name, value in values.items()}
        _check_flags(values)
        first, last = values["is_first"].astype(bool), values["is_last"].astype(bool)
        cut = self.lanes.newest(self.lanes.abandoned(lane, first))
        row = lane * self.lanes.size + self.lanes.advance(lane, first, last)
        if cut.size:
            self._end(cut)
        if last.any() and ACTION in values:
            values[ACTION] = values[ACTION].copy()
            values[ACTION][last] = 0
        self._storage.put(row, values)
        self._snapshot.touch(row)
        index = np.full(count, -1, np.int64)
        index[lane] = (self.lanes.count[lane] - 1) * count + lane
        return index

    def extend(self, episode: Mapping[str, Array], env: int = 0) -> None:
        """Add one finished episode (T+1, ...) at once, as rows of environment `env`.

        Stored columns may be absent and are then zero, which is a model's initial state.
        """
        length = rows_of(episode)
        absent = [name for name in self.columns if name.startswith(STORED) and name not in episode]
        filled = dict(episode) | {
            name: zero_rows(self.columns[name], length) for name in absent
        }  # fmt: skip
        check_episode(self.columns, filled)
        lane = np.array([env])
        cut = self.lanes.newest(lane[~self.lanes.ended[lane]])
        if cut.size:
            self._end(cut)
        places = self.lanes.extend(env, length)
        row = env * self.lanes.size + places
        values = {
            name: stored_form(name, filled[name][-places.size :], spec, places.size)
            for name, spec in self.columns.items()
        }
        self._storage.put(row, values)
        self._snapshot.touch(row)

    def ready(self, phase: Phase) -> bool:
        """Whether at least `phase.minimum` sequences can be drawn."""
        return int(possible(phase, self._runs(phase).count).sum()) >= phase.minimum

    def choose(self, phase: Phase, update: int) -> Segments:
        """The sequences of an update: the online queue's first, then drawn ones (see `Phase`).

        `episode` is the lane, `start` the serial of a row in it.
        """
        if self.fresh is not None and phase.boundary != "cross":
            raise ContractError(
                f"The online queue delivers sequences across episodes, phase {phase.name!r} wants "
                "those of one. Use boundary='cross' or set train.replay_online=false."
            )
        if self.fresh is None:
            slices = self._draw(phase, update, phase.batch)
        else:
            slices = self.fresh.take(self.lanes, phase.batch, phase.total)
            if rest := phase.batch - slices.lane.size:
                slices = slices.then(self._draw(phase, update, rest))
        return Segments.of(
            phase, update, self.name, slices.lane, slices.start, slices.count, slices.offset
        )

    def read(self, segments: Segments) -> Batch:
        """The Batch (B, T, ...) of chosen segments.

        Every flag is as recorded: `is_first` is True exactly where an episode began. A sequence
        that starts in mid-episode has it False at step 0; what precedes is in `stored`, recorded
        with the context steps, or is the model's initial state if there is no context
        (DreamerV3's replay context). `index` names the rows, -1 at padding.

        On the CPU the tensors are buffers that the next call of the same shape fills again: clone
        what must outlive it.
        """
        phase, total = segments.phase, spanned(segments.phase)
        slices = Slices(segments.episode, segments.start, segments.padding, segments.count)
        found = self._storage.read(self.lanes, slices, self._lengths(phase))
        if phase.stride > 1:
            wanted = {name: steps_to_read(phase, name) for name in found}
            found = {name: found[name][:, first::k] for name, (first, k, _) in wanted.items()}
        index = self.lanes.index(slices, total)[:, phase.stride - 1 :: phase.stride]
        names = torch.from_numpy(index[:, : phase.total]).to(found[FLAGS[0]].device)
        return batch_of(phase, segments, found, names)

    def _lengths(self, phase: Phase) -> Mapping[str, int]:
        """The rows of a window that each column is read from; kept, since every update asks."""
        key = (phase.context, phase.length, phase.stride)
        if key not in self._read_lengths:
            names = [n for n in self.columns if phase.context or not n.startswith(STORED)]
            wanted = {name: steps_to_read(phase, name) for name in names}
            self._read_lengths[key] = {
                name: first + (n - 1) * k + 1 for name, (first, k, n) in wanted.items()
            }
        return self._read_lengths[key]

    def write(self, index: Tensor, values: Mapping[str, Tensor]) -> None:
        """Replace stored values of the rows named by `index` (B, T), given as (B, T, ...).

        Rows overwritten since, and padding, are skipped. Of a row named twice the later value
        stays (on an accelerator either may).
        """
        flat, known = index.reshape(-1), under(STORED, self.columns)
        ready: dict[str, Tensor] = {}
        for key, value in values.items():
            if key not in known:
                raise ContractError(
                    f"Replay.write got {key!r}, which is no stored column."
                    f"{did_you_mean(key, known)} Stored columns: {', '.join(known) or 'none'}."
                )
            spec = self.columns[known[key]]
            if tuple(value.shape) != (*index.shape, *spec.shape):
                raise ContractError(
                    f"Replay.write got {key!r} of shape {tuple(value.shape)}, expected "
                    f"{(*index.shape, *spec.shape)}: those of index, then the column's."
                )
            value = value.detach().to(torch_dtype(spec))
            ready[known[key]] = value.reshape(-1, *spec.shape)
        rows = self._storage.write_back(self.lanes, flat, ready)
        self._snapshot.touch(rows, ["stored"] if ready else [])

    def statistics(self, column: str) -> Statistics:
        """Mean, deviation and extremes of a column over the steps it holds."""
        return Statistics.over(column, self.columns, self._pieces(column))

    def save(
        self, path: str | Path, shared: str | Path | None = None, whole_up_to: int = 2**28
    ) -> None:
        """Write the replay into the folder `path`.

        With at most `whole_up_to` bytes of rows, or without `shared`, all goes into `path`. Else
        the rows go into `shared` as blocks that later saves reuse: only new or changed ones are
        written. `prune` removes blocks no checkpoint needs.
        """
        used = len(self) * row_bytes(self.columns)
        shared = self.shared if shared is None else shared
        common = None if shared is None or used <= whole_up_to else Path(shared)
        cursor = None if self.fresh is None else self.fresh.cursor.tolist()
        about = {"drawn": self.drawn.to_json(), "cursor": cursor}
        self._snapshot.save(Path(path), common, self._storage, about)

    def load(self, path: str | Path, shared: str | Path | None = None) -> None:
        """Become the replay saved in `path`; columns, environments and capacity must be equal."""
        shared = self.shared if shared is None else shared
        common = None if shared is None else Path(shared)
        saved = self._snapshot.load(Path(path), common, self._storage)
        self.drawn.restore(saved["drawn"])
        if self.fresh is not None:
            cursor = saved["cursor"]
            self.fresh.cursor = self.lanes.count.copy() if cursor is None else np.array(cursor)

    def _runs(self, phase: Phase) -> Slices:
        """What sequences lie in: episodes, or whole lanes."""
        if phase.boundary == "within":
            return self.lanes.episodes()
        lanes = self.lanes
        nothing = np.zeros(lanes.lanes, np.int64)
        return Slices(np.arange(lanes.lanes), lanes.oldest, nothing, lanes.filled)

    def _draw(self, phase: Phase, update: int, batch: int) -> Slices:
        runs, random, what = self._runs(phase), random_for(self.seed, phase, update), "The replay"
        if isinstance(phase.weights, LeastSampled):
            names = self.lanes.begun.names(self.lanes)
            drawn = self.drawn.of(phase, names)
            run, begin = draw(phase, runs.count, random, drawn, batch=batch, what=what)
            self.drawn.add(phase, names, run)
        else:
            run, begin = draw(phase, runs.count, random, batch=batch, what=what)
        first, count, padding = clipped(phase, begin, runs.count[run])
        return Slices(runs.lane[run], runs.start[run] + first, padding, count)

    def _pieces(self, column: str) -> Iterator[Rows]:
        names = [column, *FLAGS]
        for lane, filled in enumerate(self.lanes.filled.tolist()):
            base = lane * self.lanes.size
            for first in range(0, filled, _PIECE):
                yield self._storage.block(base + first, base + min(first + _PIECE, filled), names)

    def _make(self, storage: str, device: torch.device, folder: str | Path | None) -> Storage:
        rows = self.capacity
        if storage == "device":
            return DeviceStorage(self.columns, rows, device)
        if storage not in ("memory", "disk"):
            raise ConfigError(
                f"Replay storage is {storage!r}.{did_you_mean(storage, ('memory', 'disk'))} "
                "Choose memory, disk or device."
            )
        if (storage == "disk") != (folder is not None):
            raise ConfigError(f"Replay storage {storage!r} with folder {folder}: disk needs one.")
        return HostStorage(self.columns, rows, device, None if folder is None else Path(folder))

    def _end(self, row: Ints) -> None:
        # These rows turn out to be the last of their episodes.
        values: dict[str, Array] = {"is_last": np.ones(row.size, bool)}
        if ACTION in self.columns:
            values[ACTION] = zero_rows(self.columns[ACTION], row.size)
        self._storage.put(row, values)
        self._snapshot.touch(row)


def _check_flags(values: Mapping[str, Array]) -> None:
    first, last = values["is_first"].astype(bool), values["is_last"].astype(bool)
    if (values["is_terminal"].astype(bool) & ~last).any():
        raise ContractError(
            "Replay.append got is_terminal without is_last: a terminal step is last."
        )
    if REWARD in values and (values[REWARD][first] != 0).any():
        raise ContractError("Replay.append got a reward at is_first: nothing preceded it; give 0.")

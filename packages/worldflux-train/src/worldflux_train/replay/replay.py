"""The replay: fixed-size columns of steps, sampled as sequences."""

from __future__ import annotations

from collections.abc import Mapping
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
    check_names,
    parts,
    row_bytes,
    under,
)
from worldflux.core.batch import Batch
from worldflux.episodes import check_episode, rows_of
from worldflux.errors import ConfigError, ContractError, did_you_mean
from worldflux_train.replay.fresh import FreshQueue
from worldflux_train.replay.lanes import Ints, Lanes, Slices
from worldflux_train.replay.sampling import SAMPLERS, Sampler, possible
from worldflux_train.replay.snapshot import Snapshot
from worldflux_train.replay.storage import DeviceStorage, HostStorage, Storage
from worldflux_train.replay.values import Array, stored_form, torch_dtype, zero_rows

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
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.fresh = FreshQueue(num_envs) if online else None
        self._storage = self._make(storage, torch.device(device), folder)
        self._snapshot = Snapshot(self.columns, self.lanes)

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
        return self.lanes.lanes * self.lanes.slots

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
        row = lane * self.lanes.slots + self.lanes.advance(lane, first, last)
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
        slots = self.lanes.extend(env, length)
        row = env * self.lanes.slots + slots
        values = {
            name: stored_form(name, filled[name][-slots.size :], spec, slots.size)
            for name, spec in self.columns.items()
        }
        self._storage.put(row, values)
        self._snapshot.touch(row)

    def ready(self, length: int, context: int = 0, boundary: str = "cross") -> bool:
        """Whether `sample` can serve such a sequence."""
        _check_boundary(boundary)
        return possible(self.lanes, length, context, boundary)

    def sample(
        self,
        batch: int,
        length: int,
        context: int = 0,
        boundary: str = "cross",
        sampler: Sampler | None = None,
    ) -> Batch:
        """`batch` sequences of `context + length` steps; see `training.Phase` for `boundary`.

        Every flag is as recorded: `is_first` is True exactly where an episode began. A sequence
        that starts in mid-episode has it False at step 0; what precedes is in `stored`, recorded
        with the context steps, or is the model's initial state if there is no context
        (DreamerV3's replay context). `index` names the rows, -1 at padding.

        On the CPU the tensors are buffers that the next call of the same shape fills again: clone
        what must outlive it.
        """
        _check_boundary(boundary)
        if self.fresh is not None and sampler is None and boundary != "cross":
            raise ContractError(
                f"The online queue delivers sequences across episodes, boundary is {boundary!r}. "
                "Use boundary='cross' or a replay with online=False."
            )
        total = context + length
        slices = Slices.none()
        if self.fresh is not None and sampler is None:
            slices = self.fresh.take(self.lanes, batch, total)
        rest = batch - slices.lane.size
        if rest:
            choose = sampler or SAMPLERS[boundary]
            chosen = choose(self.lanes, self.generator, rest, length, context)
            slices = slices.then(chosen)
        return self.read(slices, total, context, masked=boundary == "pad")

    def read(self, slices: Slices, total: int, context: int = 0, masked: bool = False) -> Batch:
        """The Batch (B, total, ...) of chosen slices; `mask` is set if asked for or needed."""
        lengths = {name: total for name in self.columns if not name.startswith(STORED)}
        stored = under(STORED, self.columns) if context else {}
        lengths |= {name: context for name in stored.values()}
        found = self._storage.read(self.lanes, slices, lengths)
        index = torch.from_numpy(self.lanes.index(slices, total)).to(found[FLAGS[0]].device)
        masked = masked or bool((slices.count < total).any())
        return Batch(
            **parts(found), mask=index >= 0 if masked else None, index=index, context=context
        )

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

    def save(
        self, path: str | Path, shared: str | Path | None = None, whole_up_to: int = 2**28
    ) -> None:
        """Write the replay into the folder `path`.

        With at most `whole_up_to` bytes of rows, or without `shared`, all goes into `path`. Else
        the rows go into `shared` as blocks that later saves reuse: only new or changed ones are
        written. `prune` removes blocks no checkpoint needs.
        """
        used = len(self) * row_bytes(self.columns)
        common = None if shared is None or used <= whole_up_to else Path(shared)
        cursor = None if self.fresh is None else self.fresh.cursor.tolist()
        about = {"generator": self.generator.bit_generator.state, "cursor": cursor}
        self._snapshot.save(Path(path), common, self._storage, about)

    def load(self, path: str | Path, shared: str | Path | None = None) -> None:
        """Become the replay saved in `path`; columns, environments and capacity must be equal."""
        common = None if shared is None else Path(shared)
        saved = self._snapshot.load(Path(path), common, self._storage)
        self.generator.bit_generator.state = saved["generator"]
        if self.fresh is not None:
            cursor = saved["cursor"]
            self.fresh.cursor = self.lanes.count.copy() if cursor is None else np.array(cursor)

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


def _check_boundary(boundary: str) -> None:
    if boundary not in SAMPLERS:
        raise ContractError(
            f"Unknown boundary {boundary!r}.{did_you_mean(boundary, SAMPLERS)} "
            f"Boundaries: {', '.join(SAMPLERS)}."
        )


def _check_flags(values: Mapping[str, Array]) -> None:
    first, last = values["is_first"].astype(bool), values["is_last"].astype(bool)
    if (values["is_terminal"].astype(bool) & ~last).any():
        raise ContractError(
            "Replay.append got is_terminal without is_last: a terminal step is last."
        )
    if REWARD in values and (values[REWARD][first] != 0).any():
        raise ContractError("Replay.append got a reward at is_first: nothing preceded it; give 0.")

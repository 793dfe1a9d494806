"""Metrics as TensorBoard event files in the run folder."""

from __future__ import annotations

from pathlib import Path

from worldflux.errors import ConfigError
from worldflux_train.clock import tick_of
from worldflux_train.sinks.base import Row, numbers


class TensorBoardSink:
    """Writes scalars by tick; on resuming, what came after `tick` is purged from the plots."""

    def __init__(self, folder: Path, tick: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"train.tensorboard needs a package: {error}. "
                'Run: pip install "worldflux-train[tensorboard]"'
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=tick or None)  # type: ignore[no-untyped-call]

    def write(self, row: Row) -> None:
        for key, value in numbers(row).items():
            self._writer.add_scalar(key, value, round(tick_of(row)))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]

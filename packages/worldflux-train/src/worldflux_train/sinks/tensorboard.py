"""Metrics as TensorBoard event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigError
from worldflux_train.clock import tick_of
from worldflux_train.sinks.base import Row, numbers
from worldflux_train.video import FPS, gif


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

    def show(self, videos: Mapping[str, Any], tick: int) -> None:
        """As moving pictures, in the tab of images."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for name, frames in videos.items():
            height, width = frames.shape[1:3]
            picture = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=gif(frames, FPS)
            )
            summary = Summary(value=[Summary.Value(tag=f"evaluation/{name}", image=picture)])
            self._writer._get_file_writer().add_summary(summary, tick)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]

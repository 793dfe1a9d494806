"""Metrics to Weights & Biases."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldflux.atomic import read_json, write_json
from worldflux.errors import ConfigError
from worldflux_train.clock import tick_of
from worldflux_train.sinks.base import Row, numbers
from worldflux_train.video import FPS

SENT = "wandb.json"


class WandbSink:
    """Logs scalars by tick into `project`.

    The run's folder holds its id and how far it was sent, so that a resumed run continues it and
    sends no row twice, and another run in the same place gets an id of its own.
    """

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                f"train.wandb={project!r} needs a package: {error}. "
                'Run: pip install "worldflux-train[wandb]"'
            ) from error
        self._path = folder / SENT
        sent = read_json(self._path) if self._path.is_file() else {}
        self._id = str(sent.get("id") or uuid.uuid4().hex[:12])
        # The last tick sent, and how many rows of it; a resumed run makes the same rows again.
        self._tick, self._rows = float(sent.get("tick", -1)), int(sent.get("rows", 0))
        self._again = self._rows
        self._remember()
        self._run = wandb.init(
            project=project, name=folder.name, id=self._id, resume="allow", dir=str(folder),
            config=dict(config),
        )  # fmt: skip
        self._run.define_metric("tick")
        self._run.define_metric("*", step_metric="tick")

    def write(self, row: Row) -> None:
        tick = tick_of(row)
        if tick < self._tick:
            return
        if tick == self._tick and self._again > 0:
            self._again -= 1
            return
        self._run.log({**numbers(row), "step": row["step"], "tick": tick})
        self._rows = self._rows + 1 if tick == self._tick else 1
        self._tick, self._again = tick, 0
        self._remember()

    def show(self, videos: Mapping[str, Any], tick: int) -> None:
        """As videos, at the same tick as the evaluation's row."""
        import wandb

        if tick < self._tick or (tick == self._tick and self._again > 0):  # sent already
            return
        shown = {
            f"evaluation/{name}": wandb.Video(frames.transpose(0, 3, 1, 2), fps=FPS, format="gif")
            for name, frames in videos.items()
        }
        self._run.log({**shown, "tick": tick})

    def close(self) -> None:
        self._run.finish()

    def _remember(self) -> None:
        write_json(self._path, {"id": self._id, "tick": self._tick, "rows": self._rows})

"""Metrics to Weights & Biases."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigError
from worldflux_train.sinks.base import Row, numbers


class WandbSink:
    """Logs scalars into `project`; a resumed run continues, as its id follows from its folder."""

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                f"train.wandb={project!r} needs a package: {error}. "
                'Run: pip install "worldflux-train[wandb]"'
            ) from error
        identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        self._run = wandb.init(
            project=project, name=folder.name, id=identity, resume="allow", dir=str(folder),
            config=dict(config),
        )  # fmt: skip

    def write(self, row: Row) -> None:
        self._run.log({**numbers(row), "step": row["step"]})

    def close(self) -> None:
        self._run.finish()

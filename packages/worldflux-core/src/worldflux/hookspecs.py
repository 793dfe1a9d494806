"""Every hook a WorldFlux plugin may implement. Data only: plugin modules import no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import typer

    from worldflux.specs import EnvSpec, ModelSpec

PROJECT = "worldflux"
RUN_EVENTS = (
    "worldflux_run_start",
    "worldflux_after_update",
    "worldflux_after_episode",
    "worldflux_checkpoint",
    "worldflux_run_end",
)

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks the functions of a plugin module that implement hooks."""
hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def worldflux_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """The model families of this module (entry-point group `worldflux.models`)."""


@hookspec
def worldflux_envs() -> Iterable[EnvSpec]:  # type: ignore[empty-body]
    """The environment backends of this module (entry-point group `worldflux.envs`)."""


@hookspec
def worldflux_cli(app: typer.Typer) -> None:
    """Add subcommands to the `worldflux` command (group `worldflux.plugins`)."""


@hookspec
def worldflux_dataset_formats() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Readers of recorded data: format name to `"module:Class"` (group `worldflux.plugins`)."""


@hookspec
def worldflux_run_start(run: Path, config: Any) -> None:
    """A training run begins (or resumes) in the folder `run` with its resolved configuration."""


@hookspec
def worldflux_after_update(run: Path, step: int, metrics: Mapping[str, Any]) -> None:
    """One learner update is done; metrics may be 0-d tensors still on the device."""


@hookspec
def worldflux_after_episode(run: Path, episode: Mapping[str, Any]) -> None:
    """One environment episode ended."""


@hookspec
def worldflux_checkpoint(run: Path, path: Path, step: int) -> None:
    """A complete checkpoint lies in `path`."""


@hookspec
def worldflux_run_end(run: Path, outcome: str) -> None:
    """The run is over: finished, interrupted, or the name of what stopped it."""

"""worldflux-play as a WorldFlux plugin: it adds the subcommand `play`."""

from __future__ import annotations

import pluggy
import typer

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'


@pluggy.HookimplMarker("worldflux")
def worldflux_cli(app: typer.Typer) -> None:
    from worldflux_play.cli import add_commands

    add_commands(app)

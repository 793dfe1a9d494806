"""The typer app: our subcommands, then those of every plugin that implements `worldflux_cli`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from worldflux.cli import catalogue, doctor, new_plugin
from worldflux.cli.examples import examples
from worldflux.cli.once import OnceGroup
from worldflux.errors import PluginLoadError
from worldflux.plugins import plugins

_log = logging.getLogger(__name__)


_COMMANDS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "models": (catalogue.models, ("models", "models dreamerv3", "models dreamerv3:size1m")),
    "envs": (catalogue.envs, ("envs", "envs gym", "envs gym/CartPole-v1")),
    "plugins": (catalogue.plugins, ("plugins",)),
    "doctor": (doctor.doctor, ("doctor",)),
    "new-plugin": (new_plugin.new_plugin, ("new-plugin swirl --out plugins/worldflux-swirl",)),
}


def build_app() -> typer.Typer:
    """The whole command; a plugin that fails to add its part is reported and left out."""
    app = typer.Typer(
        name="worldflux",
        cls=OnceGroup,
        help="Train, imagine, plan in, play and publish world models.",
        invoke_without_command=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name, (function, shown) in _COMMANDS.items():
        app.command(name, epilog=examples(*shown))(function)
    manager = plugins()
    for plugin in manager.working("worldflux.plugins"):
        try:
            manager.ask(plugin, "worldflux_cli", app=app)
        except PluginLoadError as error:
            _log.warning("%s See: worldflux plugins", str(error).splitlines()[0])
    return app


def show_error(message: str) -> None:
    """One message on the error stream."""
    typer.secho("Error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(message, err=True)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"worldflux-core {version('worldflux-core')}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())

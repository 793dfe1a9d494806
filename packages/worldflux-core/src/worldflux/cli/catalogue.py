"""`worldflux models`, `envs` and `plugins`: what is installed, without importing torch."""

from __future__ import annotations

from typing import Annotated

import typer

from worldflux import factory, registry
from worldflux.cli.table import show_table
from worldflux.errors import PluginLoadError
from worldflux.ids import ModelId
from worldflux.plugins import GROUPS, Plugin
from worldflux.plugins import plugins as plugin_manager


def models(
    model_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Show one family in full.")
    ] = None,
) -> None:
    """List the installed model families, or describe one."""
    if model_id is not None:
        _describe_model(model_id)
        return
    names = factory.list_models()
    if not names:
        typer.echo("No model family is installed. Try: pip install worldflux-dreamer")
        return
    found = plugin_manager().group("worldflux.models")
    rows = [(name, p.distribution, p.version) for name, p in zip(names, found, strict=True)]
    show_table(("MODEL", "DISTRIBUTION", "VERSION"), rows)


def _describe_model(model_id: str) -> None:
    parsed = ModelId.parse(model_id)
    spec = factory.get_model_spec(model_id)
    plugin = registry.models.plugin(parsed.family, parsed.distribution)
    presets = [f"{p} (default)" if p == spec.default_preset else p for p in spec.presets]
    lines = {
        "family": spec.family,
        "about": spec.description,
        "paper": spec.paper,
        "aliases": ", ".join(spec.aliases),
        "can": ", ".join(sorted(spec.capabilities)),
        "agent": "yes" if spec.agent else "none of its own",
        "presets": ", ".join(presets),
        "from": f"{plugin.distribution} {plugin.version}",
    }
    _show_lines(lines)
    if parsed.preset is not None:
        typer.echo(factory.preset_of(spec, parsed.preset)[1].to_json())


def envs(
    backend: Annotated[
        str | None, typer.Argument(metavar="[BACKEND]", help="Show one backend and its tasks.")
    ] = None,
) -> None:
    """List the environment backends and what they lack, or one backend's options and tasks."""
    if backend is not None:
        _describe_backend(backend)
        return
    found = factory.list_env_backends()
    if not found:
        typer.echo('No environment backend is installed. Try: pip install "worldflux-envs[gym]"')
        return
    rows = [(b.name, b.distribution, b.problem or f"ready: {b.description}") for b in found]
    show_table(("BACKEND", "DISTRIBUTION", "STATUS"), rows)


def _describe_backend(backend: str) -> None:
    spec = factory.get_env_spec(backend)
    _show_lines(
        {
            "backend": spec.backend,
            "about": spec.description,
            "aliases": ", ".join(spec.aliases),
            "needs": ", ".join(spec.requires),
            "install": spec.install,
        }
    )
    for option, meaning in spec.options.items():
        typer.echo(f"  {option}: {meaning}")
    for task in factory.list_envs(backend):
        typer.echo(task)


def plugins() -> None:
    """Load every plugin and list it with its traceback if it is broken."""
    manager = plugin_manager()
    status = {plugin: _status(plugin) for plugin in manager.installed}
    rows = [
        (p.name, p.group.removeprefix("worldflux."), f"{p.distribution} {p.version}", p.module, s)
        for p, s in status.items()
    ]
    show_table(("NAME", "KIND", "DISTRIBUTION", "MODULE", "STATUS"), rows)
    for report in dict.fromkeys(manager.failures.values()):
        typer.echo(f"\n{report}")


def _status(plugin: Plugin) -> str:
    manager = plugin_manager()
    own = dict(zip(GROUPS, (registry.models.specs, registry.envs.specs, manager.load), strict=True))
    try:
        own[plugin.group](plugin)
    except PluginLoadError as error:
        manager.failures.setdefault(plugin.key, str(error))
        return "broken"
    return "ok"


def _show_lines(lines: dict[str, str]) -> None:
    for key, value in lines.items():
        if value:
            typer.echo(f"{key:8} {value}")

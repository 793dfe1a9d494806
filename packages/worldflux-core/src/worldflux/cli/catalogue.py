"""`worldflux models`, `envs` and `plugins`: what is installed; lists import no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worldflux import factory, registry
from worldflux.cli import completion
from worldflux.cli.table import show_table
from worldflux.errors import PluginLoadError
from worldflux.ids import ModelId
from worldflux.plugins import GROUPS, Plugin
from worldflux.plugins import plugins as plugin_manager

if TYPE_CHECKING:
    from worldflux.config import Config


def models(
    model_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="Show one family in full.", autocompletion=completion.model_ids
        ),
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
    rows = [(name, *_summary(name, p)) for name, p in zip(names, found, strict=True)]
    show_table(("MODEL", "DISTRIBUTION", "VERSION", "PRESETS", "DESCRIPTION"), rows)


def _summary(name: str, plugin: Plugin) -> tuple[str, ...]:
    """The other columns of a family's row."""
    try:
        spec = registry.models.spec_of(plugin, plugin.name)
    except PluginLoadError:
        return plugin.distribution, plugin.version, "-", "broken, see: worldflux plugins"
    return plugin.distribution, plugin.version, " ".join(spec.presets), spec.description


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
    _describe_slots(model_id)
    if parsed.preset is not None:
        _describe_preset(model_id, factory.preset_of(spec, parsed.preset)[1])


def _describe_slots(model_id: str) -> None:
    """Its replaceable parts, with what goes in and comes out."""
    from worldflux.slot_help import slots_of

    typer.echo("")
    for slot in slots_of(model_id):
        typer.echo(str(slot))


def _describe_preset(model_id: str, config: Config) -> None:
    """The size of one preset, and every key of its configuration."""
    from worldflux.config_help import keys_of

    typer.echo(f"\nsize     {_size(model_id)}\n")
    for key in keys_of(config):
        typer.echo(str(key))


def _size(model_id: str) -> str:
    """Parameters for the default spaces, counted without allocating them."""
    import torch

    with torch.device("meta"):
        model = factory.create_world_model(model_id)
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{count:,} parameters of the world model, for 64x64 images and 6 continuous actions"


def envs(
    backend: Annotated[
        str | None,
        typer.Argument(
            metavar="[BACKEND[/TASK]]",
            help="Show one backend, or the spaces of one task.",
            autocompletion=completion.env_ids,
        ),
    ] = None,
) -> None:
    """List the environment backends, show one's options and tasks, or the spaces of one task."""
    if backend is not None and "/" in backend:
        _describe_task(backend)
        return
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


def _describe_task(env_id: str) -> None:
    """What one environment shows and takes; it is made for that and closed again."""
    env = factory.make_env(env_id)
    try:
        observed = getattr(env.observation_space, "spaces", {"observation": env.observation_space})
        rows = [("observation", str(key), str(space)) for key, space in observed.items()]
        show_table(("WHAT", "KEY", "SPACE"), [*rows, ("action", "-", str(env.action_space))])
    finally:
        env.close()


def plugins() -> None:
    """Load every plugin and list it with its traceback if it is broken."""
    manager = plugin_manager()
    status = {plugin: status_of(plugin) for plugin in manager.installed}
    rows = [
        (p.name, p.group.removeprefix("worldflux."), f"{p.distribution} {p.version}", p.module, s)
        for p, s in status.items()
    ]
    show_table(("NAME", "KIND", "DISTRIBUTION", "MODULE", "STATUS"), rows)
    for report in dict.fromkeys(manager.failures.values()):
        typer.echo(f"\n{report}")


def status_of(plugin: Plugin) -> str:
    """`ok` or `broken`; why it is broken stands in the manager's failures."""
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

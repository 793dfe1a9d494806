"""What is installed, by id: one `Registry` class, the instances `models` and `envs`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Generic, TypeVar

from worldflux.errors import ConfigError, PluginLoadError, UnknownIdError
from worldflux.ids import normalize, qualified, squeezed
from worldflux.plugins import Plugin, allowed, plugins
from worldflux.specs import EnvSpec, ModelSpec

SpecT = TypeVar("SpecT", ModelSpec, EnvSpec)

MODEL_PACKAGES = {
    "dreamerv3": "worldflux-dreamer",
    "dreamerv2": "worldflux-dreamer",
    "dreamerv1": "worldflux-dreamer",
    "planet": "worldflux-dreamer",
    "rssm": "worldflux-dreamer",
    "tdmpc2": "worldflux-tdmpc2",
    "iris": "worldflux-iris",
    "diamond": "worldflux-diamond",
    "dit": "worldflux-diamond",
    "genie": "worldflux-genie",
    "ijepa": "worldflux-jepa",
    "jepa-wm": "worldflux-jepa",
    "lewm": "worldflux-jepa",
    "vjepa": "worldflux-jepa",
}
ENV_PACKAGES = {
    "gym": '"worldflux-envs[gym]"',
    "dmc": '"worldflux-envs[dmc]"',
    "atari": '"worldflux-envs[atari]"',
    "mujoco": '"worldflux-envs[mujoco]"',
    "robotics": '"worldflux-envs[robotics]"',
    "minigrid": '"worldflux-envs[minigrid]"',
    "crafter": '"worldflux-envs[crafter]"',
    "craftax": '"worldflux-envs[craftax]"',
    "pusht": '"worldflux-envs[pusht]"',
    "wm": "worldflux-envs",
}


class Registry(Generic[SpecT]):
    """The specs of one entry-point group, each loaded when its id is first asked for."""

    def __init__(
        self, kind: str, spec: type[SpecT], key: str, group: str, hints: Mapping[str, str]
    ) -> None:
        self.kind = kind
        self.spec: type[SpecT] = spec
        self.key: Callable[[SpecT], str] = attrgetter(key)
        self.group = group
        self.hook = group.replace(".", "_")
        self.hints = hints
        self.local: dict[str, SpecT] = {}
        """Specs of this process alone (`worldflux.register`), by their squeezed names."""

    def names(self) -> list[str]:
        """The ids to ask for, from metadata alone; qualified where two distributions share one."""
        found: list[Plugin] = plugins().group(self.group)
        shared = {p.name for p in found if len(self._called(p.name, None)) > 1}
        own: list[str] = list(dict.fromkeys(map(self.key, self.local.values())))
        named: list[str] = [
            qualified(p.name, p.distribution if p.name in shared else None) for p in found
        ]
        return [*named, *own]

    def add(self, spec: SpecT) -> None:
        """Know `spec` in this process; a name that is taken already is refused."""
        for name in (self.key(spec), *spec.aliases):
            if squeezed(name) in self.local or self._called(name, None):
                raise ConfigError(
                    f"The {self.kind} {name!r} is there already. Register yours under another name."
                )
        for name in (self.key(spec), *spec.aliases):
            self.local[squeezed(name)] = spec

    def remove(self, spec: SpecT) -> None:
        """Forget a spec that `add` was given."""
        self.local = {name: own for name, own in self.local.items() if own is not spec}

    def get(self, name: str, distribution: str | None = None) -> SpecT:
        """The spec called `name`; loads the plugin of that name and no other."""
        own = self.local.get(squeezed(name)) if distribution is None else None
        return own or self.spec_of(self.plugin(name, distribution), name)

    def plugin(self, name: str, distribution: str | None = None) -> Plugin:
        """The one plugin that provides `name`, not loaded if an entry point has that name."""
        name = normalize(name)
        found = self._called(name, distribution) or self._aliased(name, distribution)
        if not found:
            raise UnknownIdError(self._unknown(name, distribution))
        if len(found) > 1:
            forms = " or ".join(qualified(name, plugin.distribution) for plugin in found)
            raise UnknownIdError(
                f"{len(found)} distributions provide the {self.kind} {name!r}. Say which: {forms}."
            )
        return found[0]

    def specs(self, plugin: Plugin) -> list[SpecT]:
        """Every spec this plugin provides."""
        found = plugins().ask(plugin, self.hook)
        if not found or not all(isinstance(spec, self.spec) for spec in found):
            raise PluginLoadError(
                f"{plugin}: {self.hook} must return a list of {self.spec.__name__}, it returned "
                f"{found!r}. Is it marked with worldflux.hookspecs.hookimpl?"
            )
        return found

    def spec_of(self, plugin: Plugin, name: str) -> SpecT:
        """The spec this plugin provides under `name`; its only one needs no matching name."""
        specs = self.specs(plugin)
        for spec in specs:
            if squeezed(name) in self._spoken(spec):
                return spec
        if len(specs) == 1:
            return specs[0]
        own = ", ".join(map(self.key, specs))
        raise PluginLoadError(f"{plugin} provides no {self.kind} {name!r}. Its own: {own}.")

    def _called(self, name: str, distribution: str | None) -> list[Plugin]:
        group = plugins().group(self.group)
        found = [plugin for plugin in group if distribution in (None, plugin.distribution)]
        exact = [plugin for plugin in found if plugin.name == normalize(name)]
        alike = {p.key: p for p in found if squeezed(p.name) == squeezed(name)}
        return exact or list(alike.values())

    def _aliased(self, name: str, distribution: str | None) -> list[Plugin]:
        found: dict[str, Plugin] = {}
        for plugin in plugins().working(self.group):
            try:
                spoken = any(squeezed(name) in self._spoken(spec) for spec in self.specs(plugin))
            except PluginLoadError:
                continue
            if spoken and distribution in (None, plugin.distribution):
                found.setdefault(plugin.key, plugin)
        return list(found.values())

    def _spoken(self, spec: SpecT) -> set[str]:
        return {squeezed(self.key(spec)), *map(squeezed, spec.aliases)}

    def _unknown(self, name: str, distribution: str | None) -> str:
        known: list[str] = [plugin.name for plugin in plugins().group(self.group)]
        near = difflib.get_close_matches(name, [*known, *self.hints], n=1, cutoff=0.5)
        best = name if name in self.hints else next(iter(near), "")
        hint = f" Did you mean {best!r}?" if best not in ("", name) else ""
        if best in self.hints and best not in known:
            hint += f" Try: pip install {self.hints[best]}."
        if not hint and best not in self.hints:
            hint = (
                " If it was registered in the process that used it, register it again first: "
                "worldflux.register(...)."
            )
        owner = f" of the distribution {distribution!r}" if distribution else ""
        only = allowed()
        limit = "" if only is None else f" WORLDFLUX_PLUGINS={','.join(sorted(only))} is set."
        installed = ", ".join(self.names()) or "none"
        return f"No {self.kind} {name!r}{owner}.{hint} Installed: {installed}.{limit}"


models = Registry("model family", ModelSpec, "family", "worldflux.models", MODEL_PACKAGES)
envs = Registry("environment backend", EnvSpec, "backend", "worldflux.envs", ENV_PACKAGES)

"""What is installed, by id: one `Registry` class, the instances `models` and `envs`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Generic, TypeVar

from worldflux.errors import PluginLoadError, UnknownIdError
from worldflux.ids import normalize, qualified
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

    def names(self) -> list[str]:
        """The ids to ask for, from metadata alone; qualified where two distributions share one."""
        found = plugins().group(self.group)
        shared = {p.name for p in found if len(self._called(p.name, None)) > 1}
        return [qualified(p.name, p.distribution if p.name in shared else None) for p in found]

    def get(self, name: str, distribution: str | None = None) -> SpecT:
        """The spec called `name`; loads the plugin of that name and no other."""
        return self.spec_of(self.plugin(name, distribution), name)

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
            if normalize(name) in self._spoken(spec):
                return spec
        if len(specs) == 1:
            return specs[0]
        own = ", ".join(map(self.key, specs))
        raise PluginLoadError(f"{plugin} provides no {self.kind} {name!r}. Its own: {own}.")

    def _called(self, name: str, distribution: str | None) -> list[Plugin]:
        return [
            plugin
            for plugin in plugins().group(self.group)
            if plugin.name == name and distribution in (None, plugin.distribution)
        ]

    def _aliased(self, name: str, distribution: str | None) -> list[Plugin]:
        found: dict[str, Plugin] = {}
        for plugin in plugins().working(self.group):
            try:
                spoken = any(name in self._spoken(spec) for spec in self.specs(plugin))
            except PluginLoadError:
                continue
            if spoken and distribution in (None, plugin.distribution):
                found.setdefault(plugin.key, plugin)
        return list(found.values())

    def _spoken(self, spec: SpecT) -> set[str]:
        return {normalize(self.key(spec)), *map(normalize, spec.aliases)}

    def _unknown(self, name: str, distribution: str | None) -> str:
        known: list[str] = [plugin.name for plugin in plugins().group(self.group)]
        near = difflib.get_close_matches(name, [*known, *self.hints], n=1, cutoff=0.5)
        best = name if name in self.hints else next(iter(near), "")
        hint = f" Did you mean {best!r}?" if best not in ("", name) else ""
        if best in self.hints and best not in known:
            hint += f" Try: pip install {self.hints[best]}."
        owner = f" of the distribution {distribution!r}" if distribution else ""
        only = allowed()
        limit = "" if only is None else f" WORLDFLUX_PLUGINS={','.join(sorted(only))} is set."
        installed = ", ".join(self.names()) or "none"
        return f"No {self.kind} {name!r}{owner}.{hint} Installed: {installed}.{limit}"


models = Registry("model family", ModelSpec, "family", "worldflux.models", MODEL_PACKAGES)
envs = Registry("environment backend", EnvSpec, "backend", "worldflux.envs", ENV_PACKAGES)

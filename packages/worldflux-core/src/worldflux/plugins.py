"""Finds plugins in the metadata of installed distributions and loads them one at a time.

Listing reads metadata and imports nothing. Loading checks the plugin's requirement on
worldflux-core, imports its module and registers its hooks; whatever goes wrong is remembered with
its traceback and never touches another plugin.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import pluggy

from worldflux import hookspecs
from worldflux.errors import PluginLoadError
from worldflux.ids import normalize

GROUPS = ("worldflux.models", "worldflux.envs", "worldflux.plugins")
CORE = "worldflux-core"
_log = logging.getLogger(__name__)


class Plugin(NamedTuple):
    """One entry point: its id, the module that stands behind it and who installed it."""

    group: str
    name: str
    module: str
    distribution: str
    version: str
    requires: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in reports: who installed it and which module it is."""
        return f"{self.distribution}::{self.module}"

    def __str__(self) -> str:
        return f"Plugin {self.name!r} of {self.distribution} {self.version} ({self.module})"


class PluginManager:
    """The plugins of this process: what is installed, what is loaded, what failed and why."""

    def __init__(self) -> None:
        self.hooks = pluggy.PluginManager(hookspecs.PROJECT)
        self.hooks.add_hookspecs(hookspecs)
        self.failures: dict[str, str] = {}
        self._dropped: set[Any] = set()
        self._listening = False

    @functools.cached_property
    def installed(self) -> tuple[Plugin, ...]:
        """Every entry point of our groups, sorted; reads metadata only."""
        return tuple(sorted({plugin for plugin in _discover() if enabled(plugin)}))

    def group(self, group: str) -> list[Plugin]:
        """The installed plugins of one entry-point group."""
        return [plugin for plugin in self.installed if plugin.group == group]

    def load(self, plugin: Plugin) -> Any:
        """The plugin's module, registered; `PluginLoadError` with the traceback if it cannot be."""
        if plugin.key in self.failures:
            raise PluginLoadError(self.failures[plugin.key])
        if (loaded := self.hooks.get_plugin(plugin.key)) is not None:
            return loaded
        _log.debug("Loading plugin %s", plugin.key)
        try:
            _check_core(plugin)
            module = importlib.import_module(plugin.module)
            self.hooks.register(module, plugin.key)
            self.hooks.check_pending()
        except (Exception, SystemExit) as error:
            raise self._remember(plugin, error) from error
        return module

    def ask(self, plugin: Plugin, hook: str, **arguments: Any) -> list[Any]:
        """The items that this plugin alone returns from `hook` (pairs, of a mapping)."""
        module = self.load(plugin)
        others = [other for other in self.hooks.get_plugins() if other is not module]
        try:
            answers = self.hooks.subset_hook_caller(hook, others)(**arguments)
            return [
                item
                for answer in answers
                for item in (answer.items() if isinstance(answer, Mapping) else answer)
            ]
        except (Exception, SystemExit) as error:
            raise self._remember(plugin, error) from error

    def working(self, group: str) -> Iterator[Plugin]:
        """The plugins of a group that load; the others are reported once and left out."""
        for plugin in self.group(group):
            known = plugin.key in self.failures
            try:
                self.load(plugin)
            except PluginLoadError as error:
                if not known:
                    _log.warning("%s See: worldflux plugins", str(error).splitlines()[0])
            else:
                yield plugin

    def fire(self, event: str, **arguments: Any) -> None:
        """Tell every plugin about a run event (see `worldflux.hookspecs.RUN_EVENTS`).

        A listener that raises is reported with its plugin's name and hears nothing more; with
        WORLDFLUX_STRICT_PLUGINS=1 its exception ends the run instead.
        """
        if not self._listening:
            self._listening = True
            list(self.working("worldflux.plugins"))
        for listener in reversed(getattr(self.hooks.hook, event).get_hookimpls()):
            if listener.plugin in self._dropped:
                continue
            values = [arguments[name] for name in listener.argnames]
            try:
                listener.function(*values)
            except Exception:
                if os.environ.get("WORLDFLUX_STRICT_PLUGINS") == "1":
                    raise
                self._dropped.add(listener.plugin)
                name = listener.plugin_name
                self.failures[name] = f"Plugin {name} raised in {event}.\n{traceback.format_exc()}"
                _log.exception("Plugin %s raised in %s. It hears no more of the run.", name, event)

    def _remember(self, plugin: Plugin, error: BaseException) -> PluginLoadError:
        if isinstance(error, PluginLoadError):
            reason, details = str(error), ""
        else:
            reason = f"{type(error).__name__}: {error}"
            details = "\n" + "".join(traceback.format_exception(error)).rstrip()
        text = f"{plugin} cannot be loaded: {reason}{details}"
        self.failures[plugin.key] = text
        if self.hooks.has_plugin(plugin.key):
            self.hooks.unregister(name=plugin.key)
        return PluginLoadError(text)


@functools.cache
def plugins() -> PluginManager:
    """The plugin manager of this process."""
    return PluginManager()


def fire(event: str, **arguments: Any) -> None:
    """Tell every plugin about a run event; see `PluginManager.fire`."""
    plugins().fire(event, **arguments)


def allowed() -> frozenset[str] | None:
    """The names in WORLDFLUX_PLUGINS (ids or distributions), None where all are."""
    text = os.environ.get("WORLDFLUX_PLUGINS")
    return None if text is None else frozenset(normalize(n) for n in text.split(",") if n.strip())


def enabled(plugin: Plugin) -> bool:
    """Whether WORLDFLUX_PLUGINS lets this plugin in."""
    only = allowed()
    return only is None or plugin.name in only or plugin.distribution in only


def _discover() -> Iterable[Plugin]:
    seen: set[str] = set()
    for distribution in metadata.distributions():
        try:
            if "worldflux." not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name = normalize(distribution.name)
            if name in seen:
                continue
            seen.add(name)
            yield from _entries(distribution, name)
        except Exception:  # noqa: BLE001 - one damaged distribution must not hide the others
            _log.warning("Unreadable metadata in %s", distribution, exc_info=True)


def _entries(distribution: metadata.Distribution, name: str) -> Iterable[Plugin]:
    requires = tuple(distribution.requires or ())
    for entry in distribution.entry_points:
        if entry.group in GROUPS:
            yield Plugin(
                entry.group,
                normalize(entry.name),
                entry.value,
                name,
                distribution.version,
                requires,
            )


def _check_core(plugin: Plugin) -> None:
    from packaging.requirements import Requirement

    installed = metadata.version(CORE)
    for text in plugin.requires:
        requirement = Requirement(text)
        if normalize(requirement.name) != CORE or (
            requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        ):
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            raise PluginLoadError(
                f"it needs {requirement}, but {CORE} {installed} is installed. Run: "
                f"pip install --upgrade {plugin.distribution} {CORE}"
            )

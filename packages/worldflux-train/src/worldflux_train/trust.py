"""What in a configuration file would run code, and the caller's word that it may.

Ids of installed models and environments run nothing but what the user installed. A file can also
name a module (`gym/package:Env`, a slot's class) or a program (`unity/path`): then whoever wrote
the file decides what runs here, so the caller has to say yes: `--trust`, or `trust=True`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

from worldflux.errors import ConfigError
from worldflux.factory import env_runs_code, get_env_spec

# `package.module:Name`, alone or as the task of an environment's id.
_MODULE = re.compile(r"[^\W\d][\w.-]*:[^\W\d]")
# Rooms whose text runs nothing, or is looked at key by key; and folders, named as anybody likes.
_DATA_ROOMS = ("id", "model", "agent", "train", "env", "slots")
_FOLDERS = ("data.path", "data.validation")


class Finding(NamedTuple):
    """One key of a configuration whose value is code."""

    key: str
    value: Any
    effect: str

    def __str__(self) -> str:
        return f"{self.key}: {_short(self.value)} {self.effect}"


class TrustError(ConfigError):
    """A file names code to run, and nobody said that it may."""

    def __init__(self, where: str, found: list[Finding], command: str | None = None) -> None:
        self.where, self.found = where, found
        listed = "".join(f"\n  {finding}" for finding in found)
        yes = "pass trust=True (on the command line: --trust)" if command is None else command
        super().__init__(
            f"{where} names code that would run on this machine:{listed}\n"
            f"Nothing was run. If you trust who wrote that file: {yes}"
        )

    def with_command(self, command: str) -> Self:
        """The same error, ending in the command line that says yes."""
        return type(self)(self.where, self.found, command)


def code_in(config: Mapping[str, Any]) -> list[Finding]:
    """Everything in a run's configuration (its rooms as plain data) that names code."""
    env = config.get("env") or {}
    rest = {room: value for room, value in config.items() if room not in _DATA_ROOMS}
    slots = config.get("slots") or {}
    others = [found for found in _modules("", rest) if found.key not in _FOLDERS]
    return [*_env_id(env), *_env_options(env), *_slots(slots), *others]


def require_trust(config: Mapping[str, Any], own: Mapping[str, Any], where: str) -> None:
    """Raise `TrustError` for code in `config` unless the caller set that very key, in `own`."""
    found = [finding for finding in code_in(config) if not _sets(own, finding.key)]
    if found:
        raise TrustError(where, found)


def _env_id(env: Mapping[str, Any]) -> Iterator[Finding]:
    if env.get("id") is None:
        return
    text = str(env["id"])
    if effect := env_runs_code(text):
        yield Finding("env.id", text, effect)


def _env_options(env: Mapping[str, Any]) -> Iterator[Finding]:
    options = {key: value for key, value in env.items() if key != "id"}
    if options.get("args") and get_env_spec(str(env.get("id"))).backend == "unity":
        yield Finding("env.args", options["args"], "goes to the program's command line")
    yield from _modules("env", options)


def _slots(slots: Any) -> Iterator[Finding]:
    """Every part: however its class is spelled (`a.b:C`, `a.b.C`), it is imported and made."""
    for slot, part in slots.items() if isinstance(slots, Mapping) else ():
        named = part.get("class", part) if isinstance(part, Mapping) else part
        yield Finding(f"slots.{slot}", named, "is imported and made")


def _modules(key: str, value: Any) -> Iterator[Finding]:
    """Every string in nested plain data that looks like a module path."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _modules(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _modules(key, inner)
    elif isinstance(value, str) and _MODULE.search(value):
        yield Finding(key, value, "can import that module")


def _sets(own: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(own, Mapping) or part not in own:
            return False
        own = own[part]
    return True


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

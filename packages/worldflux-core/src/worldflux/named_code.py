"""What in a configuration file would run code, so that it needs the caller's word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worldflux.factory import env_runs_code, get_env_spec, parse_env_id
from worldflux.trust import MODULE, Finding, slot_finding

# Rooms whose text runs nothing, or is looked at key by key; and folders, named as anybody likes.
_DATA_ROOMS = ("id", "model", "agent", "train", "env", "slots")
_FOLDERS = ("data.path", "data.validation")


def code_in(config: Mapping[str, Any]) -> list[Finding]:
    """Everything in a run's configuration (its rooms as plain data) that names code."""
    env = config.get("env") or {}
    rest = {room: value for room, value in config.items() if room not in _DATA_ROOMS}
    slots = config.get("slots") or {}
    others = [found for found in _modules("", rest) if found.key not in _FOLDERS]
    return [*_env_id(env), *_env_options(env), *_slots(slots), *others]


def _env_id(env: Mapping[str, Any]) -> Iterator[Finding]:
    if env.get("id") is None:
        return
    text = str(env["id"])
    if effect := env_runs_code(text):
        yield Finding("env.id", text, effect, _named(text))


def _named(env_id: str) -> str:
    """The module of `backend/module:Name`, else the whole task: a program's path."""
    task = parse_env_id(env_id).task
    found = MODULE.match(task)
    return found[1] if found else task


def _env_options(env: Mapping[str, Any]) -> Iterator[Finding]:
    options = {key: value for key, value in env.items() if key != "id"}
    if options.get("args") and get_env_spec(str(env.get("id"))).backend == "unity":
        effect = "goes to the program's command line"
        yield Finding("env.args", options["args"], effect, _named(str(env["id"])))
    yield from _modules("env", options)


def _slots(slots: Any) -> Iterator[Finding]:
    for slot, part in slots.items() if isinstance(slots, Mapping) else ():
        yield slot_finding(slot, part.get("class", part) if isinstance(part, Mapping) else part)


def _modules(key: str, value: Any) -> Iterator[Finding]:
    """Every string in nested plain data that looks like a module path."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _modules(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _modules(key, inner)
    elif isinstance(value, str):
        for found in MODULE.finditer(value):
            yield Finding(key, value, "can import that module", found[1])

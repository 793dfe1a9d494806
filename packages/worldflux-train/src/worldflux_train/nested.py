"""Nested plain data and its dotted keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worldflux.errors import ConfigError
from worldflux.yaml_text import value_of

Nested = dict[str, Any]


def parse_overrides(pairs: list[str]) -> Nested:
    """`["agent.lr=1e-4", ...]` as dotted keys and YAML values."""
    found: Nested = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set takes key=value, got {pair!r}. Example: --set agent.lr=1e-4")
        if key.strip() in found:
            raise ConfigError(f"--set {key.strip()}=... is given twice. Give it once.")
        found[key.strip()] = value_of(text)
    return found


def with_options(overrides: Mapping[str, Any], options: Mapping[str, tuple[str, Any]]) -> Nested:
    """`overrides` and the values of options of their own, by key: `{"env.id": ("--env", None)}`.

    `ConfigError` where a key is set both ways; an option that is None was not given.
    """
    given = {key: (name, value) for key, (name, value) in options.items() if value is not None}
    for key, (name, value) in given.items():
        if key in overrides:
            raise ConfigError(
                f"{name} {value} and --set {key}={overrides[key]} both set {key}. Give one of them."
            )
    return {**overrides, **{key: value for key, (_, value) in given.items()}}


def nest(dotted: Mapping[str, Any]) -> Nested:
    """`{"agent.lr": 1}` as `{"agent": {"lr": 1}}`."""
    found: Nested = {}
    for key, value in dotted.items():
        *path, last = key.split(".")
        inner: Any = {last: value}
        for part in reversed(path):
            inner = {part: inner}
        found = merge(found, inner)
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested plain data by its dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Nested:
    """`base` with the values of `over`, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged

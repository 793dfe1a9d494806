"""Nested plain data and its dotted keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worldflux.errors import ConfigError
from worldflux_train.yaml_text import value_of

Nested = dict[str, Any]


def parse_overrides(pairs: list[str]) -> Nested:
    """`["agent.lr=1e-4", ...]` as dotted keys and YAML values."""
    found: Nested = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set takes key=value, got {pair!r}. Example: --set agent.lr=1e-4")
        found[key.strip()] = value_of(text)
    return found


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

"""YAML as people write it: `1e-4` is a number, and errors say where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from worldflux.errors import ConfigError

# YAML 1.1 wants a point and a signed exponent in a number; nobody writes learning rates so.
_FLOAT = re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+|[-+]?\.\d+([eE][-+]?\d+)?")


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789")
)


def value_of(text: str) -> Any:
    """One value, as after `key=`."""
    return _load(text, "the value " + repr(text))


def read_yaml(path: Path) -> dict[str, Any]:
    """A file that holds a mapping (an empty one is an empty mapping)."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    found = _load(text, str(path))
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold keys and values, it holds a {type(found).__name__}.")
    return {str(key): value for key, value in found.items()}


def _load(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {error}") from error

"""Functions among an environment's options, as a file holds them: by their module and name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldflux.errors import ConfigError


def named_functions(env: Mapping[str, Any]) -> dict[str, Any]:
    """The options with every function as `"module:name"`.

    `ConfigError` for one that no other process could import.
    """
    return {key: _named(key, value) for key, value in env.items()}


def _named(key: str, value: Any) -> Any:
    if not callable(value):
        return value
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    if not module or module == "__main__" or not name or "<" in name:
        raise ConfigError(
            f"env.{key} is {value!r}, which cannot be imported again when the run is continued. "
            "Define it at the top of a module and import it from there."
        )
    return f"{module}:{name}"

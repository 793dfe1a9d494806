"""The caller's word for the code that a configuration file names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldflux.errors import ConfigError
from worldflux.named_code import code_in
from worldflux.trust import Trust, require


def names_in(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules and programs that a configuration names, for one whose file is the caller's."""
    return tuple(dict.fromkeys(finding.name for finding in code_in(config)))


def require_trust(
    config: Mapping[str, Any], own: Mapping[str, Any], trust: Trust, where: str
) -> None:
    """Raise `TrustError` for code in `config` that is not trusted.

    A key that the caller set, in `own`, is the caller's word already.
    """
    require([found for found in code_in(config) if not _sets(own, found.key)], trust, where)


def refuse_inner_trust(env: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for an option `trust` of an environment, however deep it lies.

    It would be a file's word for what the file names.
    """
    for key, value in env.items():
        if key == "trust":
            raise ConfigError(
                "env.trust is no key of a configuration: it is the caller's word. Write --trust "
                "MODULE, or trust=(...) in Python."
            )
        for inner in value if isinstance(value, list | tuple) else [value]:
            if isinstance(inner, Mapping):
                refuse_inner_trust(inner)


def _sets(own: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(own, Mapping) or part not in own:
            return False
        own = own[part]
    return not isinstance(own, Mapping) or "class" in own  # options alone leave a slot's class

"""YAML as people write it: `1e-4` is a number, what is easily misread is refused, errors say where.

Files come from anywhere, so that their size is bounded before anything looks at them: aliases can
multiply a few hundred bytes to billions of values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from worldflux.errors import ConfigError

# YAML 1.1 wants a point and a signed exponent in a number; nobody writes learning rates so.
_FLOAT = re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+|[-+]?\.\d+([eE][-+]?\d+)?")
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_QUOTE = ": quote it if it is text"
MOST_DEPTH = 50
MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """SafeLoader without its surprises."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        return dict(super().construct_mapping(node, deep=deep))

    def construct_yaml_int(self, node: Any) -> int:
        text, value = self.construct_scalar(node), int(super().construct_yaml_int(node))
        base = 60 if ":" in text else 8 if _OCTAL.fullmatch(text) else 10
        if base != 10:
            _refuse(node, f"{text} would be read in base {base}, as {value}{_QUOTE}")
        return value

    def construct_yaml_float(self, node: Any) -> float:
        text = self.construct_scalar(node)
        value = float(super().construct_yaml_float(node))
        if ":" in text:
            _refuse(node, f"{text} would be read in base 60, as {value}{_QUOTE}")
        if math.isinf(value) and "inf" not in text.lower():
            _refuse(node, f"{text} is beyond the largest number, 1.8e308")
        return value

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: dict[str, int] = {}
        for key, value in node.value:
            merges = key.tag == "tag:yaml.org,2002:merge"
            if merges and not isinstance(value, yaml.MappingNode):
                _refuse(value, "<< takes one mapping")
            if not merges and key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                _refuse(key, f"the key {shown} is no text{_QUOTE}")
            line = key.start_mark.line + 1
            if key.value in seen:
                _refuse(key, f"{key.value!r} stands here and in line {seen[key.value]}: keep one")
            seen[key.value] = line


def _refuse(node: yaml.Node, reason: str) -> NoReturn:
    raise _Refused(node.start_mark.line + 1, reason)


class _Refused(Exception):
    """A line, and what is wrong with it."""


for _kind, _method in (("int", "construct_yaml_int"), ("float", "construct_yaml_float")):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", getattr(_Loader, _method))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789")
)


def value_of(text: str) -> Any:
    """One value, as after `key=`."""
    return _load(text, "the value " + repr(text))


def read_yaml(path: Path) -> dict[str, Any]:
    """A file that holds a mapping (an empty one is an empty mapping)."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}. "
            "Save it as UTF-8."
        ) from None
    return mapping_of(text, str(path))


def mapping_of(text: str, where: str) -> dict[str, Any]:
    """Text that holds a mapping (an empty one is an empty mapping); errors name `where`."""
    found = _load(text, where)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"{where} must hold keys and values, it holds a {type(found).__name__}.")
    return found


def _load(text: str, where: str) -> Any:
    try:
        found = yaml.load(text, _Loader)
    except _Refused as error:
        line, reason = error.args
        raise ConfigError(f"{where}, line {line}: {reason}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{where} is nested more than {MOST_DEPTH} deep.") from None
    except ValueError as error:
        raise ConfigError(f"{where} holds a value that cannot be read: {error}.") from error
    _require_bounded(found, where)
    return found


def _require_bounded(found: Any, where: str) -> None:
    """Refuse what is too deep or, its aliases written out, too much."""
    counts: dict[int, int] = {}

    def count(value: Any, depth: int) -> int:
        if depth > MOST_DEPTH:
            raise ConfigError(f"{where} is nested more than {MOST_DEPTH} deep.")
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in counts:
            parts = value.values() if isinstance(value, dict) else value
            counts[id(value)] = 1 + sum(count(part, depth + 1) for part in parts)
        return counts[id(value)]

    total = count(found, 0)
    if total > MOST_VALUES:
        raise ConfigError(
            f"{where} holds {total:,} values once its aliases (*name) are written out, "
            f"{MOST_VALUES:,} are the most."
        )

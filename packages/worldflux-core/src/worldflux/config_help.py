"""What every key of a configuration is: its value, its range, what it means and its source."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


class Key(NamedTuple):
    """One key: `agent.lr`, its value, the values it takes, its description, and its few values."""

    name: str
    value: Any
    takes: str
    about: str
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        about = f"\n    {self.about}" if self.about else ""
        return f"{self.name} = {self.value}   [{self.takes}]{about}"


def keys_of(config: BaseModel, prefix: str = "") -> Iterator[Key]:
    """Every key of `config` with its value there; those of sub-configurations are dotted."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            about = " ".join((field.description or "").split())
            yield Key(
                f"{prefix}{name}", _plain(value), takes(field), about, choices(field.annotation)
            )


def takes(field: FieldInfo) -> str:
    """The values a field takes, such as `integer > 0`, `number in 0 <= x <= 1`, `gru or lstm`."""
    return " ".join([_kind(field.annotation), *_bounds(field.metadata)])


def choices(annotation: Any) -> tuple[str, ...]:
    """Every value of a type that has few, as it is written; else none."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return tuple(map(str, parts))
    if origin in (Union, types.UnionType):
        return tuple(dict.fromkeys(found for part in parts for found in choices(part)))
    plain = {bool: ("true", "false"), type(None): ("null",)}
    return plain.get(annotation, ())


def _kind(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in parts)
    if hasattr(annotation, "__metadata__"):  # Annotated[int, Gt(0)]
        return " ".join([_kind(annotation.__origin__), *_bounds(annotation.__metadata__)])
    if origin in (tuple, list):
        return f"list of {_kind(parts[0])}" if parts else "list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping"
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    if annotation is None or annotation is type(None):
        return "null"
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds(metadata: Any) -> list[str]:
    """`> 0` and the like, out of the constraints of a field."""
    found = []
    for item in metadata:
        for part in (item, *getattr(item, "metadata", ())):  # a Field holds its own
            for name, sign in _BOUNDS.items():
                if (limit := getattr(part, name, None)) is not None:
                    found.append(f"{sign} {limit}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return "null" if value is None else value

"""The base of every configuration: frozen, strict about keys, JSON both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from worldflux.errors import ConfigError, did_you_mean

_ConfigT = TypeVar("_ConfigT", bound="Config")


class Config(BaseModel):
    """A frozen configuration. Unknown keys are errors; changes go through `with_`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(type(self), error)) from None

    def with_(self, **overrides: Any) -> Self:
        """A validated copy with the given fields replaced; dotted keys reach sub-configs.

        `config.with_(**{"agent.lr": 1e-4})`. A key that does not exist raises `ConfigError`
        naming the nearest one; values go through the same validation as at construction.
        """
        return type(self)(**_merged(self, overrides))

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-able plain data."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """The configuration as indented JSON."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read plain data; unknown keys and bad values raise `ConfigError`."""
        return cls(**dict(values))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(_explain(cls, error)) from None


def dotted(config: Config, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides by whole keys: a field that one sub-configuration alone has needs no dots.

    `{"lr": 1e-4}` becomes `{"agent.lr": 1e-4}` where only `config.agent` has an `lr`; a name that
    several have raises `ConfigError`. Keys that are found nowhere are left as they are.
    """
    return {_dotted_key(config, key): value for key, value in overrides.items()}


def _dotted_key(config: Config, key: str) -> str:
    head, fields = key.partition(".")[0], type(config).model_fields
    parts = {name: getattr(config, name) for name in fields}
    rooms = [name for name, part in parts.items() if _has(part, head)]
    if head in fields or not rooms:
        return key
    if len(rooms) > 1:
        written = " and ".join(f"{room}.{key}" for room in rooms)
        raise ConfigError(f"{key!r} could be {written}: write which one.")
    return f"{rooms[0]}.{key}"


def _has(part: Any, field: str) -> bool:
    return isinstance(part, Config) and field in type(part).model_fields


def _merged(config: Config, overrides: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(config, name) for name in type(config).model_fields}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in overrides.items():
        head, _, rest = key.partition(".")
        if head not in values:
            raise ConfigError(_unknown(type(config), head))
        if rest or (isinstance(values[head], Config) and isinstance(value, Mapping)):
            nested.setdefault(head, {}).update({rest: value} if rest else value)
        else:
            values[head] = value
    for head, inner in nested.items():
        base = values[head]
        if not isinstance(base, Config):
            raise ConfigError(
                f"{type(config).__name__}.{head} is {base!r}, a plain value: it has no key "
                f"{next(iter(inner))!r}."
            )
        values[head] = base.with_(**inner)
    return values


def _unknown(cls: type[BaseModel], key: str) -> str:
    names = list(cls.model_fields)
    return f"{cls.__name__} has no key {key!r}.{did_you_mean(key, names)} Keys: {', '.join(names)}."


def _explain(cls: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(_unknown(_class_at(cls, item["loc"][:-1]), str(item["loc"][-1])))
        else:
            lines.append(
                f"{cls.__name__}.{path}: {item['msg']}, got {item.get('input')!r}."
                if path
                else f"{cls.__name__}: {item['msg']}."
            )
    return "\n".join(lines)


def _class_at(cls: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    for part in path:
        found = cls.model_fields.get(str(part))
        if found is None or not isinstance(found.annotation, type):
            return cls
        if issubclass(found.annotation, BaseModel):
            cls = found.annotation
    return cls

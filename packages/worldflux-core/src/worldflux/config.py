"""The base of every configuration: frozen, strict about keys, JSON and YAML both ways."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from worldflux import describe
from worldflux.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from worldflux.columns import Columns

_ConfigT = TypeVar("_ConfigT", bound="Config")
# What was given may be huge (YAML aliases multiply), so that only its beginning is shown.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


class Config(BaseModel):
    """A frozen configuration. Unknown keys are errors; changes go through `with_`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(type(self), error)) from None

    @model_validator(mode="before")
    @classmethod
    def _no_truth_as_number(cls, values: Any) -> Any:
        """`lr: true` would be taken for 1."""
        for name, field in cls.model_fields.items():
            value = values.get(name) if isinstance(values, Mapping) else None
            if isinstance(value, bool) and _numbers_only(field.annotation):
                raise ValueError(f"{name} is a number, got {str(value).lower()}")
        return values

    def with_(self, **overrides: Any) -> Self:
        """A validated copy with the given fields replaced; dotted keys reach sub-configs.

        `config.with_(**{"agent.lr": 1e-4})`. A key that does not exist raises `ConfigError`
        naming the nearest one; values go through the same validation as at construction.
        """
        return type(self)(**_merged(self, overrides))

    def completed(self, columns: Columns, episode_limit: int | None = None) -> Self:
        """This configuration with what follows from a run's steps: called before it is built.

        `columns` are those of its data or environment, `episode_limit` the most steps of an
        episode, None where there is no limit. A family fills fields that are None (a number of
        classes, an episode's length); by default there are none.
        """
        return self

    def described(self) -> tuple[str, list[describe.Row]]:
        """A row for the fields of each sub-configuration, and one for those beside them."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        own = [f"{k}={v!r}" for k, v in values.items() if not isinstance(v, Config)]
        held = [("", ", ".join(own))] if own else []
        for name, value in values.items():
            held += describe.rows(name, value) if isinstance(value, Config) else []
        return type(self).__name__, held

    def __repr__(self) -> str:
        return describe.text(*self.described())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from worldflux.config_help import keys_of

        keys = [(key.name, str(key.value), key.about) for key in keys_of(self)]
        return describe.table(type(self).__name__, keys)

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

    def to_yaml(self) -> str:
        """The configuration as YAML, in the order of its fields."""
        import yaml

        return str(yaml.safe_dump(self.to_dict(), sort_keys=False))

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read what `to_yaml` wrote, or a person: `1e-4` is a number, a missing key its default."""
        from worldflux.yaml_text import mapping_of

        return cls.from_dict(mapping_of(text, f"The YAML of a {cls.__name__}"))


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
        # Where a field takes one class only, its `kind` is a value like any other.
        if "kind" in inner and len(kinds := _kinds(type(config), head)) > 1:
            base = _of_kind(f"{type(config).__name__}.{head}", kinds, base, inner.pop("kind"))
        values[head] = base.with_(**inner)
    return values


def _kinds(cls: type[Config], field: str) -> dict[Any, type[Config]]:
    """The configurations that a field takes, by their `kind`."""
    return {
        part.model_fields["kind"].default: part
        for part in _leaves(cls.model_fields[field].annotation)
        if isinstance(part, type) and issubclass(part, Config) and "kind" in part.model_fields
    }


def _of_kind(where: str, kinds: Mapping[Any, type[Config]], base: Config, kind: Any) -> Config:
    """`base`, or a config of another `kind`, with the values of the fields that both have."""
    if kind == getattr(base, "kind", None):
        return base
    if kind not in kinds:
        raise ConfigError(
            f"{where}.kind is {kind!r}.{did_you_mean(str(kind), map(str, kinds))} "
            f"Kinds: {', '.join(map(str, kinds))}."
        )
    other = kinds[kind]
    same = set(type(base).model_fields) & set(other.model_fields) - {"kind"}
    return other(**{name: getattr(base, name) for name in same})


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
            given = _SHORT.repr(item.get("input"))
            text = f"{cls.__name__}.{path}: {item['msg']}, got {given}.{_meaning(cls, item['loc'])}"
            lines.append(text if path else f"{cls.__name__}: {item['msg']}.")
    return "\n".join(lines)


def _meaning(cls: type[BaseModel], path: tuple[int | str, ...]) -> str:
    """What the refused key is, as its description says."""
    field = _class_at(cls, path[:-1]).model_fields.get(str(path[-1])) if path else None
    if field is None or not field.description:
        return ""
    return f" It is: {' '.join(field.description.split())}"


def _numbers_only(annotation: Any) -> bool:
    """Whether a field of this type takes numbers and nothing that a bool could stand for."""
    plain = set(_leaves(annotation))
    return bool(plain & {int, float}) and not plain & {bool, Any, object}


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types in a union; what a list or mapping holds is looked at by itself."""
    if isinstance(annotation, type):
        yield annotation
        return
    if hasattr(annotation, "__metadata__"):  # Annotated[float, ...]
        yield from _leaves(annotation.__origin__)
        return
    for part in get_args(annotation):
        yield from _leaves(part)


def _class_at(cls: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    for part in path:
        found = cls.model_fields.get(str(part))
        if found is None or not isinstance(found.annotation, type):
            return cls
        if issubclass(found.annotation, BaseModel):
            cls = found.annotation
    return cls

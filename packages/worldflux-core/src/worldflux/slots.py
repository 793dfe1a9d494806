"""What a caller puts into a world model's slots: read before the model is built, taken by it.

`{"observation_encoder": "package.module:Class"}` or, with options,
`{"observation_encoder": {"class": "package.module:Class", "depth": 4}}`; in Python also the class
itself or a finished module. A class is built as `Class(model, **options)` while the model's
constructor runs (`WorldModel.fill`); nothing of the part it replaces is built.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worldflux.errors import ConfigError, ContractError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from worldflux.core.model import WorldModel

SLOTS = (
    "observation_encoder",
    "action_conditioner",
    "dynamics_model",
    "decoder_module",
    "rollout_executor",
)


@dataclass(frozen=True)
class Part:
    """What fills one slot: a class with the options it is built with, or a finished module."""

    slot: str
    given: Any
    reference: str
    """`"package.module:Class"`, by which it is saved."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it is a module already, which only one model can own."""
        return not isinstance(self.given, type) and hasattr(self.given, "state_dict")

    def build(self, model: WorldModel) -> nn.Module:
        """The module, made for `model`."""
        if self.finished:
            module: nn.Module = self.given
            return module
        made: nn.Module = self.given(model, **self.options)
        return made

    def to_json(self) -> dict[str, Any]:
        """What is saved of it."""
        return {"class": self.reference, **self.options}


def read_slots(slots: Mapping[str, Any]) -> dict[str, Part]:
    """The parts that `slots` names, imported; a slot or class that does not exist is refused."""
    return {slot: _part(slot, value) for slot, value in slots.items()}


def plain_slots(slots: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`slots` as a file holds them, classes by their references; nothing is imported.

    A finished module has no place in a file: a run builds its parts itself, more than once.
    """
    found = {}
    for slot, value in slots.items():
        cls, options = _class_and_options(slot, value)
        if not isinstance(cls, str):
            if not isinstance(cls, type) and hasattr(cls, "state_dict"):
                raise ConfigError(
                    f"slots.{slot} is a {type(cls).__name__} that is built already: a run builds "
                    "its parts itself, more than once. Give the class."
                )
            part = Part(slot, cls, _reference(cls), options)
            require_importable(part)
            cls = part.reference
        found[slot] = {"class": cls, **options}
    return found


def require_importable(part: Part) -> None:
    """Raise `ConfigError` for a class that no other process can import by its reference."""
    if "<locals>" in part.reference or part.reference.startswith("__main__"):
        raise ConfigError(
            f"Slot {part.slot!r} holds {part.reference}, which cannot be imported again. Define "
            "the class at the top of an installed module before saving."
        )


def _part(slot: str, value: Any) -> Part:
    cls, options = _class_and_options(slot, value)
    if isinstance(cls, str):
        return Part(slot, _imported(slot, cls), cls, options)
    finished = not isinstance(cls, type) and hasattr(cls, "state_dict")
    if finished and options:
        raise ConfigError(f"slots.{slot} is built already: options go with a class.")
    return Part(slot, cls, _reference(type(cls) if finished else cls), options)


def _class_and_options(slot: str, value: Any) -> tuple[Any, dict[str, Any]]:
    """What a slot is given, as it was written: the class (or its name) and its options."""
    if slot not in SLOTS:
        raise ConfigError(
            f"There is no slot {slot!r}.{did_you_mean(slot, SLOTS)} Slots: {', '.join(SLOTS)}."
        )
    options: dict[str, Any] = {}
    if isinstance(value, Mapping):
        options = dict(value)
        value = options.pop("class", None)
        if value is None:
            raise ConfigError(
                f"slots.{slot} names no class: write {{class: package.module:Class, ...}}."
            )
        _require_plain(slot, options)
    if not isinstance(value, str) and not callable(value):
        raise ConfigError(
            f"slots.{slot} is {value!r:.80}: write 'package.module:Class', or give a class."
        )
    return value, options


def _reference(cls: Any) -> str:
    return f"{cls.__module__}:{getattr(cls, '__qualname__', cls)}"


def _imported(slot: str, reference: str) -> Any:
    try:
        found = pkgutil.resolve_name(reference)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"slots.{slot}={reference!r} cannot be imported: {error}. Write 'package.module:Class'."
        ) from error
    if not callable(found):
        raise ConfigError(f"slots.{slot}={reference!r} is a {type(found).__name__}, not a class.")
    return found


def _require_plain(slot: str, options: Mapping[str, Any]) -> None:
    try:
        json.dumps(options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"slots.{slot}: its options must be plain data (numbers, text, lists): {error}."
        ) from error


_given: ContextVar[dict[str, Part] | None] = ContextVar("slots", default=None)


@contextmanager
def given(parts: Mapping[str, Part]) -> Iterator[None]:
    """The first world model that is built inside `with` takes `parts`; all must be used."""
    left = dict(parts)
    token = _given.set(left)
    try:
        yield
    finally:
        _given.reset(token)
    if left:
        raise ContractError(
            f"slots.{next(iter(left))} was given, but no world model was built that takes it."
        )


def take(model: WorldModel) -> dict[str, Part]:
    """The caller's parts, for the world model whose constructor runs."""
    parts, left = {}, _given.get()
    if left:
        for slot in left:
            if slot not in model.composable_support:
                own = ", ".join(sorted(model.composable_support)) or "none"
                raise ContractError(
                    f"{type(model).__name__} would ignore another {slot!r}. It can replace: {own}."
                )
        parts = dict(left)
        left.clear()
    return parts


def built(make: Callable[[], Any], parts: Mapping[str, Part]) -> Any:
    """What `make` builds, a world model or what owns one, with `parts` in its slots."""
    with given(parts):
        owner = make()
    model = getattr(owner, "world_model", owner)
    for slot in parts:
        if slot not in model.slot_overrides:
            raise ContractError(
                f"{type(model).__name__} declares slot {slot!r} replaceable but does not fill it "
                "by self.fill(...) in its constructor."
            )
    return owner

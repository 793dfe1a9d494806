"""Ids: `[distribution::]family[:preset]` for models, `[distribution::]backend/task` for envs."""

from __future__ import annotations

import re
from typing import NamedTuple

from worldflux.errors import ConfigError

_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def normalize(name: str) -> str:
    """The form in which names are compared: lower case, `_` as `-`."""
    return name.strip().lower().replace("_", "-")


def squeezed(name: str) -> str:
    """`normalize` without hyphens: `Dreamer-V3`, `dreamer_v3` and `dreamerv3` are one name."""
    return normalize(name).replace("-", "")


class ModelId(NamedTuple):
    """A parsed model id; `preset` and `distribution` are None where the text leaves them open."""

    family: str
    preset: str | None = None
    distribution: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelId:
        """Read `[distribution::]family[:preset]`."""
        distribution, rest = _split_distribution(text)
        family, colon, preset = rest.partition(":")
        form = "[distribution::]family[:preset], such as 'dreamerv3:size12m'"
        if colon and not _NAME.fullmatch(normalize(preset)):
            raise ConfigError(f"Model id {text!r} has no valid preset after ':'. Write {form}.")
        return cls(_name(family, text, form), preset.strip() or None, distribution)

    def __str__(self) -> str:
        preset = f":{self.preset}" if self.preset else ""
        return qualified(self.family, self.distribution) + preset


class EnvId(NamedTuple):
    """A parsed environment id; the task keeps its spelling, it belongs to the backend."""

    backend: str
    task: str
    distribution: str | None = None

    @classmethod
    def parse(cls, text: str) -> EnvId:
        """Read `[distribution::]backend/task`; the task may hold further slashes."""
        head, slash, task = text.partition("/")
        form = "[distribution::]backend/task, such as 'gym/CartPole-v1'"
        if not slash or not task:
            raise ConfigError(f"Environment id {text!r} names no task. Write {form}.")
        distribution, backend = _split_distribution(head)
        return cls(_name(backend, text, form), task, distribution)

    def __str__(self) -> str:
        return f"{qualified(self.backend, self.distribution)}/{self.task}"


def qualified(name: str, distribution: str | None) -> str:
    """`distribution::name`, or the name alone."""
    return f"{distribution}::{name}" if distribution else name


def _split_distribution(text: str) -> tuple[str | None, str]:
    head, separator, rest = text.partition("::")
    if not separator:
        return None, text
    return _name(head, text, "distribution::name"), rest


def _name(part: str, text: str, form: str) -> str:
    name = normalize(part)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"Id {text!r}: {part!r} is not a valid name. Write {form}.")
    return name

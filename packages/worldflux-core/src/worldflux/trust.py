"""The caller's word that code which a file names may run here.

Ids of installed models and environments run nothing but what the user installed. A file (a run's
configuration, a saved folder) can also name a module (`gym/package:Env`, a slot's class) or a
program (`unity/path`): then whoever wrote it decides what runs, so the caller has to name the same
module, a package around it, or the program: `--trust my_parts`, `trust=("my_parts",)`. What the
caller types needs no further word.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple, Self

from worldflux.errors import ConfigError

Trust = Collection[str]
"""Names of modules, packages and programs that files may name: `("my_parts",)`."""

# `package.module:Name`, alone or as the task of an environment's id.
MODULE = re.compile(r"([^\W\d][\w.-]*):[^\W\d]")


class Finding(NamedTuple):
    """One key of a file whose value is code, and the module or program that it names."""

    key: str
    value: Any
    effect: str
    name: str

    def __str__(self) -> str:
        return f"{self.key}: {_short(self.value)} {self.effect}"


class TrustError(ConfigError):
    """A file names code to run, and the caller has not said that it may."""

    def __init__(
        self,
        where: str,
        found: Iterable[Finding],
        given: Iterable[str] = (),
        command: str | None = None,
    ) -> None:
        self.where, self.found, self.given = where, list(found), tuple(given)
        listed = "".join(f"\n  {finding}" for finding in self.found)
        yes = f"pass trust={(*self.given, *self.missing)!r}" if command is None else command
        super().__init__(
            f"{where} names code that would run on this machine:{listed}\n"
            f"Nothing was run. If you trust who wrote it: {yes}"
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """The names that the caller would have to give, each once."""
        return tuple(dict.fromkeys(finding.name for finding in self.found))

    def with_command(self, typed: str) -> Self:
        """The same error, ending in the command line `typed` with what it lacks."""
        return type(self)(self.where, self.found, self.given, f"{typed}{options(self.missing)}")


def names(trust: Trust) -> tuple[str, ...]:
    """`trust` as names, each checked; `ConfigError` for anything that is none."""
    if isinstance(trust, str | bool) or not isinstance(trust, Collection):
        raise ConfigError(
            f"trust is a tuple of the modules that files may name, such as ('my_parts',); "
            f"got {trust!r}."
        )
    for name in trust:
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"trust names modules, such as 'my_parts'; got {name!r}.")
        if found := MODULE.match(name):
            raise ConfigError(
                f"trust names modules, not what is in them: {found[1]!r}, not {name!r}."
            )
    return tuple(trust)


def covers(trust: Iterable[str], name: str) -> bool:
    """Whether `trust` holds module or program `name`, or a package that it lies in."""
    return any(name == own or name.startswith(f"{own}.") for own in trust)


def require(found: Iterable[Finding], trust: Trust, where: str) -> None:
    """Raise `TrustError` for the findings in `where` that `trust` does not cover."""
    given = names(trust)
    left = [finding for finding in found if not covers(given, finding.name)]
    if left:
        raise TrustError(where, left, given)


def options(trusted: Iterable[str]) -> str:
    """` --trust a --trust b`, to put behind a command."""
    return "".join(f" --trust {shlex.quote(name)}" for name in trusted)


def slot_finding(slot: str, named: object) -> Finding:
    """That the part in `slot` is imported, however its class is spelled (`a.b:C`, `a.b.C`)."""
    text = str(named)
    module = text.partition(":")[0] if ":" in text else text.rpartition(".")[0] or text
    return Finding(f"slots.{slot}", named, "is imported and made", module)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

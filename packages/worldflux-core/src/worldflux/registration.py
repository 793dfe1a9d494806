"""Families and environments of one's own in a notebook, without a distribution."""

from __future__ import annotations

from typing import Any

from worldflux import given
from worldflux.registry import envs, models
from worldflux.specs import EnvSpec, ModelSpec


class Registration:
    """What `register` gave: an id that works in every function, until it is taken back.

    As a context it is taken back at the end of the block.
    """

    def __init__(self, spec: ModelSpec | EnvSpec | None, identity: str) -> None:
        self.spec, self.id = spec, identity

    def unregister(self) -> None:
        """Take it back; what was made meanwhile stays as it is."""
        if isinstance(self.spec, ModelSpec):
            models.remove(self.spec)
        elif isinstance(self.spec, EnvSpec):
            envs.remove(self.spec)
        else:
            given.forget(self.id.partition("/")[2])

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *_: object) -> None:
        self.unregister()

    def __repr__(self) -> str:
        return f"Registration({self.id!r})"


def register(thing: ModelSpec | EnvSpec | Any, *, name: str | None = None) -> Registration:
    """Know a family, a backend or an environment in this process, without a distribution.

    A `ModelSpec` or `EnvSpec` may hold classes and functions where an installed one holds their
    references (`model=MyModel`). Anything else is an environment, or a function that makes one,
    and gets the id `given/<name>`. Whoever opens what was trained or saved with it registers the
    same again before. `ConfigError` for a name that is taken.
    """
    if isinstance(thing, ModelSpec):
        models.add(thing)
        return Registration(thing, thing.family)
    if isinstance(thing, EnvSpec):
        envs.add(thing)
        return Registration(thing, thing.backend)
    return Registration(None, given.give(thing, name))

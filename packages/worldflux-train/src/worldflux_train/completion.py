"""What the shell offers behind the Tab key for runs: configuration keys, recipes and devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from worldflux.cli.completion import env_ids as env_ids
from worldflux.cli.completion import model_ids as model_ids
from worldflux.errors import WorldFluxError

if TYPE_CHECKING:
    from worldflux.config_help import Key

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def recipe_names(incomplete: str) -> list[str]:
    """The shipped recipes; behind `NAME=` too, as `compare` takes them."""
    from worldflux_train.config import recipes

    return [f"{incomplete[: incomplete.rfind('=') + 1]}{name}" for name in recipes()]


def suite_names(incomplete: str) -> list[str]:
    """The shipped suites."""
    from worldflux_train.comparison.suites import shipped

    return list(shipped())


def named_model_ids(incomplete: str) -> list[str]:
    """Model ids, also behind `NAME=`, as `compare` takes them."""
    name, equals, typed = incomplete.rpartition("=")
    return [f"{name}{equals}{found}" for found in model_ids(typed)]


def devices(incomplete: str) -> list[str]:
    """The kinds of device."""
    return list(DEVICES)


def settings(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """`KEY=` of a run with this model and environment; behind it the values, or the default.

    `compare` may have `NAME/` before the key.
    """
    name, slash, typed = (
        incomplete.rpartition("/") if "=" not in incomplete else ("", "", incomplete)
    )
    found = [key for key in _keys(context) if f"{key.name}=".startswith(typed.partition("=")[0])]
    offered = [(f"{name}{slash}{key.name}=", key.about) for key in found]
    if len(found) == 1 or "=" in typed:  # a word that is whole would get a space behind it
        offered += [
            (f"{name}{slash}{key.name}={value}", key.about)
            for key in found
            for value in key.choices or (str(key.value),)
            if value
        ]
    return offered


def _keys(context: typer.Context) -> Iterator[Key]:
    from worldflux_train.run_keys import keys_of_run

    given = context.params.get("model") or context.params.get("models") or context.args
    models = [given] if isinstance(given, str) else [*given]
    model_id = models[0].rpartition("=")[2] if models else None
    env = context.params.get("env")
    first = env if env is None or isinstance(env, str) else next(iter(env), None)
    with contextlib.suppress(WorldFluxError):  # an id that is not whole yet
        yield from keys_of_run(model_id, first)

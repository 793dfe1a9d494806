"""Every command, those of plugins too, shows in its help what to type, and that is understood."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from worldflux.cli.app import build_app

ROOT = get_command(build_app())


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands below this one that are no groups, with their names."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, sub in inner.items():
        yield from leaves(sub, (*path, name))


LEAVES = dict(leaves(ROOT))


def shown(path: tuple[str, ...], app: typer.Typer) -> list[list[str]]:
    """The examples in the help of a command, as words."""
    text = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"}).stdout
    examples = text.partition("Examples:")[2]
    return [shlex.split(line) for line in re.findall(r"^\s*worldflux (.*)$", examples, re.M)]


def problem(path: tuple[str, ...], app: typer.Typer) -> str | None:
    """What is wrong with the examples in a command's help."""
    name, lines = " ".join(path), shown(path, app)
    if not lines:
        return f"worldflux {name} --help has no example"
    command = dict(leaves(get_command(app)))[path]
    for words in lines:
        if words[: len(path)] != [*path]:
            return f"worldflux {' '.join(words)} is no example of {name}"
        try:
            command.make_context(name, words[len(path) :])
        except Exception as error:  # noqa: BLE001 - whatever the parser says is the finding
            return f"worldflux {' '.join(words)}: {error!r}"
    return None


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_the_help_of_every_command_has_examples_that_are_understood(path):
    assert problem(path, build_app()) is None


def test_there_are_commands_of_plugins_among_them():
    assert {("models",), ("train",), ("compare",), ("data", "info")} <= set(LEAVES)


@pytest.mark.parametrize(
    ("epilog", "found"),
    [
        (None, "has no example"),
        ("Examples:\n\nworldflux other 3", "is no example of shake"),
        ("Examples:\n\nworldflux shake --speed 3", "No such option"),
        ("Examples:\n\nworldflux shake hard", "valid integer"),
        ("Examples:\n\nworldflux shake 3", None),
    ],
)
def test_a_command_without_a_good_example_is_found(epilog, found):
    app = build_app()

    @app.command("shake", epilog=epilog)
    def shake(times: int) -> None:
        """Shake."""

    text = problem(("shake",), app)
    assert found in text if found else text is None

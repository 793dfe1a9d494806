"""Options that several subcommands share, and the command line that says yes to code in files."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worldflux.trust import TrustError
from worldflux_train.completion import devices

if TYPE_CHECKING:
    from rich.console import Console

Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="MODULE",
        help="A module, package or program that files may name to run. May be repeated.",
    ),
]
Changed = Annotated[
    bool,
    typer.Option(
        "--changed-config", help="Go on with a config.yaml that was changed since the checkpoint."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="cpu|cuda|...",
        help="In place of the configuration's train.device.",
        autocompletion=devices,
    ),
]


def find_here(names: Iterable[str]) -> None:
    """Let modules of the caller's that lie in the folder of the command be imported from there.

    Only such as the caller named, and only where no installed one has the name.
    """
    here = os.getcwd()
    for name in names:
        top = name.partition(".")[0]
        beside = any(os.path.exists(os.path.join(here, found)) for found in (top, f"{top}.py"))
        if top.isidentifier() and beside and find_spec(top) is None:
            sys.path.append(here)
            importlib.invalidate_caches()
            return


def say(console: Console, text: str, style: str | None = None) -> None:
    """One line as it is: names may hold what the console would read as markup, such as [/x]."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def asking_for_trust(context: typer.Context) -> Iterator[None]:
    """Ends a `TrustError` with the whole command that was typed, and the words it lacks.

    In here the modules that `--trust` names are also found in the command's folder.
    """
    find_here(context.params.get("trust") or ())
    try:
        yield
    except TrustError as error:
        raise error.with_command(typed_command(context)) from None


def typed_command(context: typer.Context) -> str:
    """The subcommand that runs, as it was typed (with the long names of its options)."""
    words = ["worldflux", str(context.info_name)]
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE":
            words += _words(parameter, context.params[str(parameter.name)])
    return shlex.join(words)


def _words(parameter: Any, value: object) -> list[str]:
    values = [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
    if parameter.param_type_name == "argument":
        return values
    name = max(parameter.opts, key=len)
    if isinstance(value, bool):
        return [name]
    return [word for item in values for word in (name, item)]


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar on the error stream, where that is a terminal; it hears how much is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), what, TimeRemainingColumn())
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=total)

        def tell(done: int, of: int = total) -> None:
            bar.update(task, completed=min(done, of), total=of)

        yield tell

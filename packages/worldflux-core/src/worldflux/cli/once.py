"""An option that takes one value is refused a second time: the last one would silently win."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typer.core import TyperGroup


class OnceGroup(TyperGroup):
    """A group whose commands, at any depth, refuse an option that is given twice.

    Options that take lists (`multiple`) and those that count are what a list is for.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The subcommand of that name, with its parser watched."""
        found = super().get_command(ctx, cmd_name)
        return None if found is None else watched(found)


def watched(command: Any) -> Any:
    """`command` (and what is below it), refusing options given twice."""
    if getattr(command, "watched", False):
        return command
    command.watched = True
    for below in getattr(command, "commands", {}).values():
        watched(below)
    make = command.make_parser

    def make_parser(ctx: Any) -> Any:
        parser = make(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            found = parse(args)
            _refuse_repeated(ctx, found[2])
            return found

        parser.parse_args = parse_args
        return parser

    command.make_parser = make_parser
    return command


def _refuse_repeated(ctx: Any, given: list[Any]) -> None:
    """`given` holds a parameter as often as it was typed."""
    if ctx.resilient_parsing:  # the shell asks for completions of a line that is being typed
        return
    for parameter, times in Counter(given).items():
        single = parameter.param_type_name == "option" and not parameter.multiple
        if times > 1 and single and not parameter.count:
            ctx.fail(
                f"{max(parameter.opts, key=len)} takes one value, and is given {times} times. "
                "Give it once."
            )

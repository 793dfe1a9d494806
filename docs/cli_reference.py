"""Write docs/cli.md from the command itself: `python docs/cli_reference.py`."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from worldflux.cli.app import build_app

TARGET = Path(__file__).with_name("cli.md")


def reference() -> str:
    """The command line's reference as Markdown, with every subcommand of what is installed."""
    command = typer.main.get_command(build_app())
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="worldflux")
    return text.replace("$ ", "").replace("```console", "```text").rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(reference())

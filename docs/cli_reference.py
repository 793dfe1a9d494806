"""Write docs/cli.md, and the keys of `train.*` in docs/training.md: `python docs/cli_reference.py`.

Both are taken from the program itself.
"""

from __future__ import annotations

import re
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from worldflux.cli.app import build_app
from worldflux.config_help import keys_of
from worldflux_train.config import TrainConfig

TARGET = Path(__file__).with_name("cli.md")


def reference() -> str:
    """The command line's reference as Markdown, with every subcommand of what is installed."""
    command = typer.main.get_command(build_app())
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="worldflux")
    return text.replace("$ ", "").replace("```console", "```text").rstrip() + "\n"


TRAINING = Path(__file__).with_name("training.md")
_KEYS = re.compile(r"(<!-- train keys: .*? -->\n).*?(<!-- end of train keys -->)", re.DOTALL)


def training() -> str:
    """docs/training.md with its table of `train.*` keys made anew."""
    rows = [
        f"| `{key.name}` | `{key.value}` | {key.takes} | {key.about} |"
        for key in keys_of(TrainConfig(), "train.")
    ]
    table = "\n".join(["| key | default | takes | meaning |", "|---|---|---|---|", *rows])
    return _KEYS.sub(lambda found: f"{found[1]}{table}\n{found[2]}", TRAINING.read_text())


if __name__ == "__main__":
    TARGET.write_text(reference())
    TRAINING.write_text(training())

"""The subcommand `worldflux play`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from worldflux.cli.completion import env_ids
from worldflux.cli.examples import examples
from worldflux.trust import TrustError

Token = Annotated[
    str | None,
    typer.Option(
        envvar="WORLDFLUX_PLAY_TOKEN",
        help="Secret part of the page's address; default: a random one.",
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="MODULE",
        help="A module, package or program that files may name to run. May be repeated.",
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add `play` to the `worldflux` command."""
    shown = examples(
        "play runs/one",
        "play runs/one --env wf/catch --data recorded",
        "play my-model --env gym/CartPole-v1 --port 9000",
    )
    app.command("play", epilog=shown)(play)


def play(
    source: Annotated[
        str,
        typer.Argument(metavar="RUN|MODEL|HUB-ID", help="A run, a saved model, or one of the hub."),
    ],
    env: Annotated[
        str | None,
        typer.Option(
            metavar="BACKEND/TASK",
            help="The real environment beside the dream; default: the run's.",
            autocompletion=env_ids,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Recorded episodes to begin from."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of recordings; default: RUN/play, or ./recordings."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; others than this machine's own are warned of."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The next free one is taken; 0: any.")
    ] = 8765,
    token: Token = None,
    sessions: Annotated[int, typer.Option(min=1, help="Most sessions at once.")] = 8,
    linger: Annotated[
        float, typer.Option(min=0.0, help="Seconds that a session waits for its page to come back.")
    ] = 10.0,
    device: Annotated[
        str | None, typer.Option(metavar="cpu|cuda|...", help="Of the model.")
    ] = None,
    trust: Trust = None,
) -> None:
    """Play in a world model in the browser: the dream beside the real environment."""
    from worldflux_play.game import Game
    from worldflux_play.opened import open_played
    from worldflux_play.serving import prepared, serve

    try:
        played = open_played(source, env, data, out, device, tuple(trust or ()))
    except TrustError as error:
        raise error.with_command(shlex.join(["worldflux", "play", source])) from None
    Game(played).close()  # what cannot be played is said here, not on the page
    server, listening, lines = prepared(played, host, port, token, sessions, linger)
    for line in lines:
        typer.echo(line)
    serve(server, listening)

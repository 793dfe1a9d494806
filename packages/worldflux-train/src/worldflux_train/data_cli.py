"""The subcommands `worldflux data info`, `validate` and `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worldflux.errors import StorageError

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Recorded episodes.")]
app = typer.Typer(help="Look at, check and copy recorded episodes.", no_args_is_help=True)


@app.command()
def info(folder: Folder) -> None:
    """Say how many episodes there are, how long, and what a step holds."""
    from worldflux.columns import row_bytes
    from worldflux.episodes import Episodes

    episodes = Episodes(folder, verify=False)
    lengths = episodes.lengths
    size = int(lengths.sum()) * row_bytes(episodes.columns) / 1e6
    typer.echo(f"{folder}: {len(episodes)} episodes, {int(lengths.sum()):,} rows, {size:.1f} MB")
    if len(episodes):
        typer.echo(
            f"rows of an episode: {int(lengths.min())} to {int(lengths.max())}, "
            f"mean {float(lengths.mean()):.1f}"
        )
    for name, spec in episodes.columns.items():
        about = {key: value for key, value in spec.to_json().items() if key not in _SHOWN}
        more = ", ".join(f"{key}={value!r:.40}" for key, value in about.items())
        typer.echo(f"  {name}: {spec.dtype} {spec.shape}{' ' + more if more else ''}")


_SHOWN = ("shape", "dtype")


@app.command()
def validate(folder: Folder) -> None:
    """Read every episode and compare it with its checksums and the time convention."""
    from worldflux.episodes import Episodes, check_episode

    episodes = Episodes(folder)
    for number in range(len(episodes)):
        check_episode(episodes.columns, episodes[number])
    typer.echo(f"{folder}: {len(episodes)} episodes are whole and keep the time convention")


@app.command()
def convert(
    folder: Folder,
    to: Annotated[Path, typer.Argument(metavar="NEW", help="Folder to write; it must be new.")],
    first: Annotated[int, typer.Option(min=0, help="Number of the first episode to take.")] = 0,
    count: Annotated[int | None, typer.Option(min=1, help="How many; default: all.")] = None,
) -> None:
    """Write the episodes anew, checked, as this version stores them; or a part of them."""
    from worldflux.episodes import Episodes, EpisodeWriter

    episodes = Episodes(folder)
    if to.exists():
        raise StorageError(f"{to} exists already. Choose a new folder.")
    taken = range(len(episodes))[first : None if count is None else first + count]
    if not taken:
        raise StorageError(f"{folder} has {len(episodes)} episodes, none from number {first} on.")
    writer = EpisodeWriter(to, episodes.columns)
    for number in taken:
        writer.write(episodes[number], **episodes.about(number))
    typer.echo(f"{to}: {len(taken)} episodes written")

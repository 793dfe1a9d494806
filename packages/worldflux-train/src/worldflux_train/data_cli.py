"""The subcommands `worldflux data info`, `validate` and `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worldflux.cli.examples import examples
from worldflux.errors import StorageError

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Recorded episodes.")]
app = typer.Typer(help="Look at, check and copy recorded episodes.", no_args_is_help=True)


@app.command(epilog=examples("data info recorded"))
def info(folder: Folder) -> None:
    """Say how many episodes there are, how long, and what a step holds."""
    from worldflux.columns import row_bytes
    from worldflux_train.data.formats import find_format, open_recorded

    kind = find_format(folder)
    episodes = open_recorded(folder, kind)
    lengths = episodes.lengths
    size = int(lengths.sum()) * row_bytes(episodes.columns) / 1e6
    held_out = "" if episodes.held_out is None else f", {len(episodes.held_out):,} held out"
    typer.echo(
        f"{folder} ({kind}): {len(episodes):,} episodes{held_out}, {int(lengths.sum()):,} rows, "
        f"{size:.1f} MB"
    )
    if len(episodes):
        typer.echo(
            f"rows of an episode: {int(lengths.min())} to {int(lengths.max())}, "
            f"mean {float(lengths.mean()):.1f}"
        )
    for name, spec in episodes.columns.items():
        about = {key: value for key, value in spec.to_json().items() if key not in _SHOWN}
        more = ", ".join(f"{key}={value!r:.60}" for key, value in about.items())
        typer.echo(f"  {name}: {spec.dtype} {spec.shape}{' ' + more if more else ''}")


_SHOWN = ("shape", "dtype")


@app.command(epilog=examples("data validate recorded"))
def validate(folder: Folder) -> None:
    """Read every episode and compare it with its checksums and the time convention."""
    from worldflux.episodes import Episodes, check_episode

    episodes = Episodes(folder)
    for number in range(len(episodes)):
        check_episode(episodes.columns, episodes[number])
    typer.echo(f"{folder}: {len(episodes)} episodes are whole and keep the time convention")


@app.command(
    epilog=examples(
        "data convert recorded checked", "data convert recorded part --first 10 --count 100"
    )
)
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


@app.command(epilog=examples("data shapes drawn --images 2000 --held-out 200"))
def shapes(
    to: Annotated[Path, typer.Argument(metavar="NEW", help="Folder to write; it must be new.")],
    images: Annotated[int, typer.Option(min=1, help="Images to train on.")] = 10_000,
    held_out: Annotated[int, typer.Option(min=0, help="Further ones for validation.")] = 1_000,
    classes: Annotated[int, typer.Option(min=1, max=10, help="Kinds of shapes.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Everything random follows from it.")] = 0,
) -> None:
    """Draw a small set of labelled images (32x32, coloured shapes), in the layout of CIFAR-10."""
    from worldflux_train.data.drawn import write_shapes

    write_shapes(to, images, held_out, seed=seed, classes=classes)
    typer.echo(f"{to}: {images:,} images to train on, {held_out:,} for validation")


@app.command()
def tinyworlds(
    game: Annotated[str, typer.Argument(help="pico_doom, pong, zelda, pole_position or sonic.")],
    to: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where its folder is put.")],
) -> None:
    """Download recorded frames of a game (TinyWorlds), ready for `--data`."""
    from worldflux_train.data.tinyworlds import fetch_tinyworlds

    typer.echo(f"{fetch_tinyworlds(game, to)}")

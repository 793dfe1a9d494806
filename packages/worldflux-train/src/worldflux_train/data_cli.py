"""The subcommands of `worldflux data`: looking at data, checking it, writing and recording it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worldflux.cli.examples import examples
from worldflux.errors import ConfigError, StorageError
from worldflux_train.options import progress

if TYPE_CHECKING:
    from worldflux_train.data.formats import DataFormat

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder or file of recorded data.")]
New = Annotated[Path, typer.Argument(metavar="NEW", help="What to write; it must be new.")]
Format = Annotated[
    str | None, typer.Option(metavar="NAME", help="Its format; default: found by what is there.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting of the format, such as fps=10. Repeatable."
    ),
]
app = typer.Typer(help="Look at, check, convert and record data.", no_args_is_help=True)


@app.command(
    epilog=examples("data info recorded", "data info clips --set fps=10 --sheet clips.png")
)
def info(
    data: Data,
    format: Format = None,
    set_: Set = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write small pictures of it, too.")
    ] = None,
    episodes: Annotated[
        int, typer.Option(min=1, help="Episodes that the statistics are taken from.")
    ] = 100,
) -> None:
    """Say what there is: episodes, their lengths, what a step holds, and statistics of it."""
    from worldflux_train.data.facts import facts

    for line in facts(_opened(data, format, set_), data, episodes):
        typer.echo(line)
    if sheet is not None:
        from worldflux_train.data.sheet import contact_sheet

        typer.echo(f"Contact sheet: {contact_sheet(_opened(data, format, set_), sheet)}")


@app.command(epilog=examples("data validate recorded"))
def validate(data: Data, format: Format = None, set_: Set = None) -> None:
    """Read everything; say where files are damaged, numbers wrong, or episodes there twice."""
    from worldflux_train.data.checking import check_recorded

    verify = {"verify": True}  # checksums, in the one format that has them
    opened = _opened(data, format, set_, episodes=verify)
    with progress("checked", len(opened)) as tell:
        problems = list(check_recorded(opened, tell))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems[:_MOST_SHOWN])
        more = len(problems) - _MOST_SHOWN
        rest = f"\n  and {more} more" if more > 0 else ""
        damaged = len({problem.episode for problem in problems})
        raise StorageError(f"{data}: {damaged} of {len(opened)} episodes are bad:\n{lines}{rest}")
    typer.echo(f"{data}: {len(opened)} episodes are whole and keep the time convention")


_MOST_SHOWN = 20


@app.command(
    epilog=examples(
        "data convert recorded part --first 10 --count 100",
        "data convert clips frames.hdf5 --to hdf5 --set fps=10 --size 64",
    )
)
def convert(
    data: Data,
    new: New,
    to: Annotated[
        str, typer.Option(metavar="FORMAT", help="episodes, hdf5, npz, video, frames or images.")
    ] = "episodes",
    format: Format = None,
    set_: Set = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Scale and cut images to this square.")
    ] = None,
    first: Annotated[int, typer.Option(min=0, help="Number of the first episode to take.")] = 0,
    count: Annotated[int | None, typer.Option(min=1, help="How many; default: all.")] = None,
) -> None:
    """Write the data anew in a format, all of it or a part; it appears whole or not at all."""
    from worldflux_train.data.augment import Augmentations, augmentations
    from worldflux_train.data.converting import convert as converted

    opened = _opened(data, format, set_, episodes={"verify": True})
    taken = range(len(opened))[first : None if count is None else first + count]
    if not taken:
        raise StorageError(f"{data} has {len(opened)} episodes, none from number {first} on.")
    change = None
    if size is not None:
        steps = augmentations([{"resize": {"size": size}}, {"centre_crop": {"size": size}}])
        change = Augmentations(steps, opened.columns, fixed=True)
    with progress("written", len(taken)) as tell:
        converted(opened, new, to, taken, change=change, tell=tell)
    typer.echo(f"{new}: {len(taken)} episodes written")


@app.command(
    epilog=examples(
        "data collect wf/catch catch --steps 2000 --envs 4",
        "data collect gym/CartPole-v1 played --policy runs/cartpole --steps 5000",
        "data collect wf/two-room rooms --hold 5 --set obs=pixels --set size=32",
    )
)
def collect(
    env: Annotated[str, typer.Argument(metavar="BACKEND/TASK", help="Where.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to; what is there is added to.")
    ],
    steps: Annotated[int, typer.Option(min=1, help="Actions, over all environments.")] = 10_000,
    envs: Annotated[int, typer.Option(min=1, help="Environments stepped together.")] = 8,
    policy: Annotated[
        str,
        typer.Option(
            metavar="random|RUN|MODULE:FUNCTION",
            help="Random actions, a run's trained agent, or a function of observations by key.",
        ),
    ] = "random",
    hold: Annotated[
        int, typer.Option(min=1, help="Steps that a random action lasts on average.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Everything random follows from it.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the environment."),
    ] = None,
) -> None:
    """Record episodes of a policy in parallel environments; only whole ones are ever there."""
    from worldflux_train.data.collecting import collect as recorded
    from worldflux_train.nested import parse_overrides

    options = parse_overrides(set_ or [])
    with progress("recorded", steps) as tell:
        found = recorded(
            env, folder, steps, policy=_policy(policy), envs=envs, seed=seed, hold=hold,
            tell=tell, **options,
        )  # fmt: skip
    typer.echo(f"{folder}: {found} episodes recorded")


@app.command(epilog=examples("data shapes drawn --images 2000 --held-out 200"))
def shapes(
    to: New,
    images: Annotated[int, typer.Option(min=1, help="Images to train on.")] = 10_000,
    held_out: Annotated[int, typer.Option(min=0, help="Further ones for validation.")] = 1_000,
    classes: Annotated[int, typer.Option(min=1, max=10, help="Kinds of shapes.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Everything random follows from it.")] = 0,
) -> None:
    """Draw a small set of labelled images (32x32, coloured shapes), in the layout of CIFAR-10."""
    from worldflux_train.data.drawn import write_shapes

    write_shapes(to, images, held_out, seed=seed, classes=classes)
    typer.echo(f"{to}: {images:,} images to train on, {held_out:,} for validation")


@app.command("list", epilog=examples("data list"))
def list_() -> None:
    """List data sets that are known, with what reads them and what brings them."""
    from worldflux.cli.table import show_table
    from worldflux_train.data.catalogue import CATALOGUE, PACKAGES

    rows = [
        (
            known.name, known.format,
            f"pip install {PACKAGES[known.way]}" if known.way in PACKAGES else known.way,
            known.about,
        )
        for known in CATALOGUE.values()
    ]  # fmt: skip
    show_table(("DATA SET", "FORMAT", "BY", "WHAT"), rows)


@app.command(epilog=examples("data fetch cifar10 sets", "data fetch tinyworlds/pong games"))
def fetch(
    name: Annotated[str, typer.Argument(help="As `worldflux data list` shows it.")],
    to: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where its folder is put.")],
) -> None:
    """Download a known data set by its own library, ready for `--data`."""
    from worldflux_train.data.catalogue import fetch as fetched

    typer.echo(f"{fetched(name, to)}")


@app.command(epilog=examples("data tinyworlds pong games"))
def tinyworlds(
    game: Annotated[str, typer.Argument(help="pico_doom, pong, zelda, pole_position or sonic.")],
    to: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where its folder is put.")],
) -> None:
    """Download recorded frames of a game (TinyWorlds), ready for `--data`."""
    from worldflux_train.data.tinyworlds import fetch_tinyworlds

    typer.echo(f"{fetch_tinyworlds(game, to)}")


def _opened(
    path: Path, name: str | None, pairs: list[str] | None, **by_format: dict[str, Any]
) -> DataFormat:
    """The data, with the settings that were typed; `by_format` has those of single formats."""
    from worldflux_train.data.formats import find_format, open_recorded
    from worldflux_train.nested import parse_overrides

    kind = find_format(path) if name is None else name
    return open_recorded(path, kind, {**by_format.get(kind, {}), **parse_overrides(pairs or [])})


def _policy(text: str) -> Any:
    """Random (None), the agent of a run, or the function that the caller names."""
    if text == "random":
        return None
    if Path(text).is_dir():
        from worldflux_train.api import load_agent

        return load_agent(text)
    if ":" in text:
        from worldflux.factory import load_class

        return load_class(text)
    raise ConfigError(
        f"--policy={text} is neither random nor the folder of a run nor module:function."
    )

"""The subcommand `eval`: one run in a sentence, several (or several seeds) in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from worldflux.errors import ConfigError
from worldflux.runs import Run
from worldflux_train import completion
from worldflux_train.options import Changed, Device, Trust, asking_for_trust, progress

Out = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE", help="Also write the table: .csv, .md, .tex or .json. May be repeated."
    ),
]


def evaluate(
    typed: typer.Context,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Of each seed. Default: train.eval_episodes.")
    ] = None,
    step: Annotated[
        list[int] | None,
        typer.Option(help="Checkpoint; default: the best one. May be repeated."),
    ] = None,
    every_checkpoint: Annotated[
        bool, typer.Option("--every-checkpoint", help="All that are kept.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the episodes; the first of --seeds.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="How often, each from another seed.")] = 1,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BACKEND/TASK",
            help="Where, in place of the run's own. May be repeated.",
            autocompletion=completion.env_ids,
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="In all of a suite.", autocompletion=completion.suite_names
        ),
    ] = None,
    out: Out = None,
    video: Annotated[
        bool, typer.Option("--video", help="Also write the episodes as videos into the run.")
    ] = False,
    device: Device = None,
    trust: Trust = None,
    changed_config: Changed = False,
) -> None:
    """Evaluate runs on fresh episodes; a run from data alone, on its held-out data."""
    own: dict[str, Any] = {"device": device, "trust": trust or (), "changed": changed_config}
    steps: list[int | None] = [*step] if step else [None]
    with asking_for_trust(typed):
        if every_checkpoint and step:
            raise ConfigError("--every-checkpoint means all that are kept: leave --step out.")
        table = len(runs) > 1 or len(steps) > 1 or seeds > 1 or every_checkpoint
        if video and (table or env or suite or out):
            raise ConfigError("--video shows the episodes of one run, one checkpoint and one seed.")
        if video:
            _videos(runs[0], episodes, steps[0], seed, own)
        elif table or env or suite or out:
            _table(runs, out or [], seeds, seed, env or [], suite, "every" if every_checkpoint
                   else step, episodes, own)  # fmt: skip
        else:
            _sentence(runs[0], episodes, steps[0], seed, own)


def _sentence(
    run: Path, episodes: int | None, step: int | None, seed: int, own: dict[str, Any]
) -> None:
    from worldflux_train import api

    config = api.run_config(Run.open(run), **own)
    if not config.has_env:
        _on_data(run, episodes, step, seed, own, config.train.eval_batches)
        return
    row = api.evaluate_run(run, episodes, step, seed, **own).row()
    typer.echo(
        f"return {row['eval/return']:.1f} ± {row['eval/return_std']:.1f} "
        f"(min {row['eval/return_min']:.1f}, max {row['eval/return_max']:.1f}) "
        f"over {row['eval/episodes']} episodes of {row['eval/length']:.0f} steps"
    )


def _videos(
    run: Path, episodes: int | None, step: int | None, seed: int, own: dict[str, Any]
) -> None:
    from worldflux_train import api
    from worldflux_train.evaluation_videos import save_videos

    opened = Run.open(run)
    found = api.evaluate_run(run, episodes, step, seed, keep=("frames",), **own)
    tick = int(api.checkpoint_of(opened, step).name)
    for name, value in zip(save_videos(opened, tick, found.episodes), found.returns, strict=True):
        typer.echo(f"{name}: return {value:.1f}")
    typer.echo(f"Videos: {opened.videos_path}/evaluation-{tick:010d}-*.mp4")


def _on_data(
    run: Path, episodes: int | None, step: int | None, seed: int, own: dict[str, Any], batches: int
) -> None:
    from worldflux_train import api
    from worldflux_train.data import row_of

    if episodes is not None:
        raise ConfigError(
            f"{run} is on data alone: --episodes counts episodes in an environment. How "
            "much data it is judged on is train.eval_batches."
        )
    with progress("batches read", batches) as tell:
        found = api.evaluate_on_data(run, step, seed, tell=tell, **own)
    for name, value in row_of(found).items():
        typer.echo(f"{name.removeprefix('eval/')} {value:.4g} on held-out data")


def _table(
    runs: list[Path],
    out: list[Path],
    seeds: int,
    seed: int,
    envs: list[str],
    suite: str | None,
    steps: Any,
    episodes: int | None,
    own: dict[str, Any],
) -> None:
    from worldflux_train.score_tables import FORMATS, write_scores
    from worldflux_train.scoring import score_runs

    for file in out:
        if file.suffix not in FORMATS:
            raise ConfigError(f"--out {file}: tables are written as {', '.join(FORMATS)}.")
    with progress("episodes played", 1) as tell:
        found = score_runs(
            runs, envs, suite=suite, seeds=range(seed, seed + seeds), steps=steps,
            episodes=episodes, tell=tell, **own,
        )  # fmt: skip
    typer.echo(FORMATS[".md"](found), nl=False)
    for file in out:
        write_scores(found, file)
        typer.echo(f"Table: {file}")

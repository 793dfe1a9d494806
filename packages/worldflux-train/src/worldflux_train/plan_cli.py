"""The subcommand `worldflux plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worldflux_train.completion import env_ids
from worldflux_train.options import Changed, Device, Trust, asking_for_trust


def plan(
    typed: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    env: Annotated[
        str | None,
        typer.Option(
            metavar="BACKEND/TASK",
            help="Where; default: the run's own.",
            autocompletion=env_ids,
        ),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes.")] = 50,
    goal_offset: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Goals lie so many steps of a random walk away; default: the environment's own.",
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Most steps of an episode; default: no limit.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="Checkpoint; default: the best one.")] = None,
    format: Annotated[str, typer.Option(metavar="mp4|gif", help="Of the video.")] = "mp4",
    seed: Annotated[int, typer.Option(min=0, help="Of the episodes.")] = 1,
    device: Device = None,
    trust: Trust = None,
    changed_config: Changed = False,
) -> None:
    """Plan in a run's world model: how often the goal is reached, and how long a plan takes."""
    from worldflux_train.planning import plan_run

    with asking_for_trust(typed):
        found, video = plan_run(
            run, env, episodes=episodes, goal_offset=goal_offset, budget=budget, step=step,
            kind=format, seed=seed, device=device, trust=trust or (), changed=changed_config,
        )  # fmt: skip
    numbers = found.to_json()
    if found.success is not None:
        low, high = numbers["success_interval"]
        typer.echo(
            f"success {found.success:.2f} (95 % interval {low:.2f} to {high:.2f}) "
            f"over {len(found.successes)} episodes"
        )
    typer.echo(f"return {found.mean_return:.2f} over {len(found.episodes)} episodes")
    typer.echo(f"{1000 * found.seconds_per_plan:.0f} ms a plan ({found.planner})")
    if video is not None:
        typer.echo(f"Video: {video}")

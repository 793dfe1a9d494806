"""The subcommands `train`, `eval`, `imagine`, `plan`, `report` and `compare`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worldflux.cli.examples import examples
from worldflux.errors import ConfigError
from worldflux.runs import Run
from worldflux.trust import options
from worldflux_train import completion
from worldflux_train.comparison.cli import compare
from worldflux_train.data_cli import app as data_commands
from worldflux_train.evaluate_cli import evaluate
from worldflux_train.options import (
    Changed,
    Device,
    Trust,
    asking_for_trust,
    find_here,
    say,
)
from worldflux_train.plan_cli import plan

if TYPE_CHECKING:
    from worldflux_train.api import Result
    from worldflux_train.config import RunConfig

_log = logging.getLogger(__name__)
Model = Annotated[
    str | None,
    typer.Argument(
        metavar="ID[:PRESET]",
        help="What to train, such as dreamerv3:size1m.",
        autocompletion=completion.model_ids,
    ),
]
Env = Annotated[
    str | None,
    typer.Option(
        metavar="BACKEND/TASK",
        help="Where, such as gym/CartPole-v1.",
        autocompletion=completion.env_ids,
    ),
]
ConfigFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|RECIPE",
        help="YAML file, or the name of a shipped recipe.",
        autocompletion=completion.recipe_names,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a configuration key, such as agent.lr=1e-4. May be repeated.",
        autocompletion=completion.settings,
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add the subcommands of this package to the `worldflux` command."""
    for name, (function, shown) in _COMMANDS.items():
        app.command(name, epilog=examples(*shown))(function)
    app.add_typer(data_commands, name="data")


def train(
    typed: typer.Context,
    model: Model = None,
    env: Env = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Where the clock ends (train.steps).")
    ] = None,
    config: ConfigFile = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Recorded episodes to learn from (data.path)."),
    ] = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue this run.")] = None,
    device: Device = None,
    trust: Trust = None,
    changed_config: Changed = False,
    help_config: Annotated[
        bool,
        typer.Option("--help-config", help="Explain every configuration key and exit."),
    ] = False,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print the whole configuration as YAML and exit."),
    ] = False,
) -> None:
    """Train a model in an environment or on data, or continue a run. Ctrl-C saves and exits."""
    if help_config:
        from worldflux_train.run_keys import explained

        for text in explained(model, env):
            typer.echo(text)
        return
    with asking_for_trust(typed):
        if resume is None:
            typed_keys = _typed(model, env, steps, device, data)
            resolved = _resolved(config, [*(set_ or [])], typed_keys, trust or ())
            if print_config:
                typer.echo(resolved.to_yaml(), nl=False)
                return
            result = _started(resolved, out)
        elif model or env or data or config or set_ or out:
            raise ConfigError(
                "--resume takes the run's own configuration: only --steps, --device, --trust "
                "and --changed-config may be added."
            )
        elif print_config:
            raise ConfigError(f"--print-config is of a new run: this one's is {resume}/config.yaml")
        else:
            result = _resumed(
                resume, steps=steps, device=device, trust=trust or (), changed=changed_config
            )
    _ended(result, trust or ())


def _typed(
    model: str | None, env: str | None, steps: int | None, device: str | None, data: Path | None
) -> dict[str, tuple[str, Any]]:
    """The options that set a key of the configuration, by that key."""
    return {
        "id": ("the model", model),
        "env.id": ("--env", env),
        "train.steps": ("--steps", steps),
        "train.device": ("--device", device),
        "data.path": ("--data", data and str(data.resolve())),
    }


def _ended(result: Result, trust: Collection[str]) -> None:
    """Say how to go on with a run that was stopped; show one that is done."""
    trusted = _trusted(result.run, trust)
    if result.outcome == "interrupted":
        typer.echo(
            f"Interrupted at step {result.step:,} and saved. Continue with: "
            f"worldflux train --resume {result.run.path}{options(trusted)}"
        )
        raise typer.Exit(130)
    typer.echo(f"Report: {_finishing(result.run.path, trusted)}")


def _resolved(
    config: str | None,
    pairs: list[str],
    own: dict[str, tuple[str, Any]],
    trust: Collection[str],
) -> RunConfig:
    """The configuration of a new run; every id and key is looked at, without torch."""
    from worldflux_train.config import resolve
    from worldflux_train.nested import parse_overrides, with_options
    from worldflux_train.trust import names_in

    overrides = with_options(parse_overrides(pairs), own)
    model, env, steps = (overrides.pop(key, None) for key in ("id", "env.id", "train.steps"))
    resolved = resolve(model, env, config=config, overrides=overrides, steps=steps, trust=trust)
    find_here(names_in(resolved.to_dict()))
    return resolved


def _started(resolved: RunConfig, out: Path | None) -> Result:
    from rich.console import Console

    from worldflux_train import api

    console = Console()
    folder = out or _free_folder(resolved.id, resolved.where)
    say(console, f"{resolved.id} on {resolved.where}, run folder {folder}", style="bold")
    return api.train(resolved, folder, console=console)


def _resumed(run: Path, **changes: Any) -> Result:
    from rich.console import Console

    from worldflux_train import api

    return api.resume(run, console=Console(), **changes)


def imagine(
    typed: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    horizon: Annotated[int, typer.Option(min=1, help="Imagined steps.")] = 45,
    context: Annotated[int, typer.Option(min=1, help="Real steps before them.")] = 5,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes the errors are taken over.")] = 8,
    step: Annotated[int | None, typer.Option(help="Checkpoint; default: the best one.")] = None,
    format: Annotated[str, typer.Option(metavar="mp4|gif", help="Of the video.")] = "mp4",
    seed: Annotated[int, typer.Option(min=0, help="Of the episodes.")] = 1,
    device: Device = None,
    trust: Trust = None,
    changed_config: Changed = False,
) -> None:
    """Show the real beside the imagined: a video, and the error over the horizon."""
    from worldflux_train import api

    with asking_for_trust(typed):
        found, video = api.imagine_run(
            run, horizon=horizon, context=context, episodes=episodes, step=step, kind=format,
            seed=seed, device=device, trust=trust or (), changed=changed_config,
        )  # fmt: skip
    for key, error in found.error.items():
        marks = sorted({1, min(5, found.horizon), min(15, found.horizon), found.horizon})
        ahead = ", ".join(f"{error[h - 1]:.3f} at {h}" for h in marks)
        typer.echo(f"{key}: error {ahead} steps ahead (std of the real)")
    typer.echo(f"Video: {video}")


def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]) -> None:
    """Write the run's report: one HTML file that opens offline."""
    from worldflux_train.report import write_report

    typer.echo(f"Report: {write_report(Run.open(run))}")


MOST_SECONDS = 60.0
"""That playing for a run's own video may take: agents that plan are slow."""


def _finishing(run: Path, trust: Collection[str]) -> Path:
    """The picture and the report that end a run."""
    from worldflux.errors import CapabilityError
    from worldflux_train import api
    from worldflux_train.report import write_report

    try:
        api.imagine_run(run, trust=trust, most_seconds=MOST_SECONDS)
    except CapabilityError as error:
        _log.info("no imagination video: %s", error)
    except KeyboardInterrupt:
        _log.warning("no imagination video: interrupted. Make it with: worldflux imagine %s", run)
    return write_report(Run.open(run))


def _trusted(run: Run, trust: Collection[str]) -> tuple[str, ...]:
    """What the caller has trusted for this run: by option, and in what is its own file now."""
    from worldflux.yaml_text import read_yaml
    from worldflux_train.trust import names_in

    return tuple(dict.fromkeys([*trust, *names_in(read_yaml(run.config_path))]))


def _free_folder(model_id: str, env_id: str) -> Path:
    """`runs/<model>-<env>`, with a number behind it where that is taken."""
    base = Path("runs") / f"{model_id}-{env_id}".replace("/", "-").replace(":", "-")
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


_COMMANDS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "train": (
        train,
        (
            "train dreamerv3:size1m --env gym/CartPole-v1 --config dreamerv3-cartpole",
            "train tdmpc2:1m --env gym/Pendulum-v1 --steps 5000 --set train.seed=1 --out runs/one",
            "train rssm:small --data recorded --set data.validation=0.1",
            "train --config dreamerv3-cartpole --print-config",
            "train --resume runs/one --steps 10000",
        ),
    ),
    "eval": (
        evaluate,
        (
            "eval runs/one --episodes 20",
            "eval runs/one --step 5000 --device cpu",
            "eval runs/one runs/two --seeds 5 --out scores.csv",
            "eval runs/one --every-checkpoint --env wf/catch",
        ),
    ),
    "imagine": (imagine, ("imagine runs/one", "imagine runs/one --horizon 15 --format gif")),
    "plan": (plan, ("plan runs/one --episodes 50", "plan runs/one --env wf/two-room --budget 100")),
    "report": (report, ("report runs/one",)),
    "compare": (
        compare,
        (
            "compare tdmpc2:1m rssm:small --env wf/pendulum --steps 2000 --seeds 2 --out both",
            "compare a=rssm b=rssm --env wf/catch --steps 2000 --out both --set b/agent.lr=1e-3",
            "compare iris diamond --suite atari100k --seeds 5 --out atari",
        ),
    ),
}

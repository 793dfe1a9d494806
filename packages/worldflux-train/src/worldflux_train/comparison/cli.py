"""The subcommand `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worldflux.errors import ConfigError
from worldflux_train import completion
from worldflux_train.options import Trust, asking_for_trust, find_here

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]ID[:PRESET]...",
        help="Such as tdmpc2:1m dreamerv3:size1m.",
        autocompletion=completion.named_model_ids,
    ),
]
Envs = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="BACKEND/TASK",
        help="Such as wf/pendulum. May be repeated.",
        autocompletion=completion.env_ids,
    ),
]
SuiteOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Environments of a suite, such as atari100k, or of a YAML file, in place of --env.",
        autocompletion=completion.suite_names,
    ),
]
Configs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE|RECIPE",
        help="Configuration of one. May be repeated.",
        autocompletion=completion.recipe_names,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="[NAME/]KEY=VALUE",
        help="Override a key of every model, or of one: tdmpc2:1m/agent.lr=1e-4.",
        autocompletion=completion.settings,
    ),
]
Target = Annotated[
    float | None,
    typer.Option(
        help="Score that counts as optimal; default: 1 where scores are normalised, else the best."
    ),
]


def compare(
    typed: typer.Context,
    models: Models,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the runs and the report.")],
    env: Envs = None,
    suite: SuiteOption = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Agent steps of every run; default: the suite's.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Recorded episodes that all learn from (data.path)."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each model.")] = 3,
    config: Configs = None,
    set_: Set = None,
    target: Target = None,
    trust: Trust = None,
) -> None:
    """Train models with equal budgets and report them side by side. Run it again to continue."""
    from rich.console import Console

    from worldflux_train.comparison.entries import plan
    from worldflux_train.comparison.suites import places, steps_of
    from worldflux_train.nested import parse_overrides, with_options
    from worldflux_train.trust import names_in

    console = Console()
    where = data and str(data.resolve())
    overrides = with_options(parse_overrides(set_ or []), {"data.path": ("--data", where)})
    with asking_for_trust(typed):
        entries = plan(  # every id and key is looked at before torch is imported
            models, places(env or (), suite, trust or ()), seeds=range(seeds),
            steps=steps_of(steps, suite), configs=_configs(config or []),
            overrides=overrides, trust=trust or (), budgets=False,
        )  # fmt: skip
        find_here(name for entry in entries for name in names_in(entry.config.to_dict()))
        from worldflux_train.comparison.compare import compare as run

        found = run(
            models, env or (), steps=steps, suite=suite, out=out, seeds=seeds,
            configs=_configs(config or []), overrides=overrides, target=target,
            trust=trust or (), console=console,
        )  # fmt: skip
    if found.outcome == "interrupted":
        console.print("Interrupted and saved. Continue with the same command.", highlight=False)
        raise typer.Exit(130)
    table = (found.path / "table.md").read_text("utf-8")
    console.print(table, markup=False, highlight=False, soft_wrap=True)
    if len(found.standings[0].tasks) > 1:
        by_task = (found.path / "tasks.md").read_text("utf-8")
        console.print(by_task, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {found.report}", markup=False, highlight=False, soft_wrap=True)


def _configs(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not equals or not name or not source:
            raise ConfigError(
                f"--config takes NAME=FILE or NAME=RECIPE, got {pair!r}. Example: "
                "--config tdmpc2:1m=tdmpc2-pendulum"
            )
        if name in found:
            raise ConfigError(f"--config {name}=... is given twice. Give it once.")
        found[name] = source
    return found

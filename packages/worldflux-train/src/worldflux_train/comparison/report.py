"""`report.html` of a comparison: one file that opens offline."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes

from worldflux_train.comparison.profiles import Profile, profiles
from worldflux_train.comparison.results import Curve, Finished, Interval, Scale, Standing
from worldflux_train.comparison.tables import cells, duration, heads, number, task_rows
from worldflux_train.drawing import SERIES, figure, legend_above, svg
from worldflux_train.report import page, table, tiles, versions

TITLES = {"IQM": "IQM", "mean": "mean", "median": "median", "gap": "optimality gap"}


def comparison_page(
    runs: Sequence[Finished], found: Sequence[Standing], scale: Scale, place: str
) -> str:
    """The whole page."""
    envs = list(scale.tasks)
    on = envs[0] if len(envs) == 1 else f"{len(envs)} environments"
    names = [standing.label for standing in found]
    return page(
        "comparison.html",
        title=html.escape(f"{', '.join(names)} on {on}"),
        models=html.escape(" · ".join(names)),
        env=html.escape(on),
        tiles=tiles(_facts(runs, found)),
        curves=_curves(found, scale),
        tasks=_by_task(found, scale) if len(envs) > 1 else "",
        profile=_profiles(profiles(found), scale),
        intervals=_intervals(found),
        unit=html.escape(scale.unit),
        gamma=number(scale.gamma),
        optimum="a human's score" if scale.human else "the score that counts as optimal",
        table=_rows(heads(scale), [cells(standing) for standing in found]),
        runs=_rows(_RUN_HEADS, [_run(run) for run in runs]),
        configs="".join(map(_config, runs[: len(found)])),  # the first seed of each
        versions=table(versions()),
        folder=html.escape(place),
    )


def _facts(runs: Sequence[Finished], found: Sequence[Standing]) -> dict[str, str]:
    settings = runs[0].entry.config.train
    envs = len(found[0].tasks)
    return {
        "models": str(len(found)),
        **({"environments": str(envs)} if envs > 1 else {}),
        "seeds each": str(len(found[0].scores)),
        "agent steps each": f"{settings.steps:,}",
        "episodes per evaluation": str(settings.eval_episodes),
        "CPU time of all runs": duration(sum(run.cpu for run in runs)),
    }


def _curves(found: Sequence[Standing], scale: Scale) -> str:
    what = "evaluation return" if len(scale.tasks) == 1 and not scale.human else scale.unit
    with figure(8.6, 3.8) as fig:
        axes = fig.add_subplot()
        for standing, color in zip(found, cycle(SERIES), strict=False):
            _draw(axes, standing.curve, color, standing.label)
        axes.set(xlabel="agent steps", ylabel=f"{what} (IQM over runs)")
        legend_above(fig, axes, 8.5)
        return svg(fig)


def _draw(axes: Axes, curve: Curve, color: str, label: str) -> None:
    low, centre, high = np.array([_bounds(at) for at in curve.values]).T
    axes.fill_between(curve.steps, low, high, color=color, alpha=0.16, lw=0)
    axes.plot(curve.steps, centre, color=color, lw=2.2, marker="o", ms=4, label=label)


def _by_task(found: Sequence[Standing], scale: Scale) -> str:
    """A table of returns, and a learning curve of each environment."""
    envs, columns = list(scale.tasks), 3
    rows = -(-len(envs) // columns)
    with figure(8.6, 2.2 * rows) as fig:
        grid = fig.subplots(rows, columns, squeeze=False).ravel()
        for axes, env in zip(grid, envs, strict=False):
            for standing, color in zip(found, cycle(SERIES), strict=False):
                _draw(axes, standing.tasks[env].curve, color, standing.label)
            axes.set_title(env, fontsize=9)
            axes.tick_params(labelsize=7.5)
            axes.locator_params(nbins=4)
        for axes in grid[len(envs) :]:
            axes.set_visible(False)
        legend_above(fig, grid[0], 8.5)
        drawn = svg(fig)
    ends = "the lowest and the highest final return of this comparison" if scale.relative else ""
    zero_one = [
        f"{env}: {number(low)} and {number(high)}" for env, (low, high) in scale.tasks.items()
    ]
    said = (
        "<p>Returns: interquartile mean over seeds. Returns that are scores of 0 and 1"
        f"{f' (where none are known, {ends})' if ends else ''}: "
        f"{html.escape('; '.join(zero_one))}.</p>"
    )
    return f"<section><h2>By environment</h2>{_rows(*task_rows(found))}{said}{drawn}</section>"


def _profiles(found: Sequence[Profile], scale: Scale) -> str:
    with figure(8.6, 3.2) as fig:
        axes = fig.add_subplot()
        for profile, color in zip(found, cycle(SERIES), strict=False):
            if profile.low is not None and profile.high is not None:
                axes.fill_between(
                    profile.taus, profile.low, profile.high, color=color, alpha=0.16, lw=0
                )
            axes.plot(profile.taus, profile.share, color=color, lw=2.2, label=profile.label)
        axes.set(xlabel=scale.unit, ylabel="share of runs above it", ylim=(-0.02, 1.02))
        legend_above(fig, axes, 8.5)
        return svg(fig)


def _intervals(found: Sequence[Standing]) -> str:
    """Every statistic of every model as a bar from the low to the high end, with its value."""
    with figure(8.6, 0.9 + 0.42 * len(found)) as fig:
        grid = fig.subplots(1, len(TITLES), sharey=True)
        for axes, (name, title) in zip(grid, TITLES.items(), strict=True):
            for row, (standing, color) in enumerate(zip(found, cycle(SERIES), strict=False)):
                low, value, high = _bounds(standing.statistics[name])
                axes.plot(
                    [low, high], [row, row], color=color, alpha=0.35, lw=9, solid_capstyle="butt"
                )
                axes.plot([value], [row], color=color, marker="|", ms=13, mew=2.4)
            axes.set_title(title, fontsize=9)
            axes.tick_params(labelsize=7.5)
            axes.locator_params(axis="x", nbins=4)
        grid[0].set_yticks(range(len(found)), [standing.label for standing in found])
        grid[0].set_ylim(len(found) - 0.4, -0.6)
        return svg(fig)


def _bounds(found: Interval) -> tuple[float, float, float]:
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return low, found.value, high


_RUN_HEADS = (
    "Model",
    "Environment",
    "Seed",
    "Final return",
    "Best return",
    "Wall time",
    "CPU time",
    "Folder",
)


def _run(run: Finished) -> list[str]:
    return [
        run.entry.label,
        run.entry.place.env,
        str(run.entry.seed),
        number(run.final),
        number(max(row["eval/return"] for row in run.evaluations)),
        duration(run.wall),
        duration(run.cpu),
        run.entry.folder,
    ]


def _rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(text: str) -> str:
    """An interval stands small under its value."""
    value, bracket, bounds = text.partition(" [")
    small = f"<small>{html.escape(bracket.strip() + bounds)}</small>" if bracket else ""
    return f"<td>{html.escape(value)}{small}</td>"


def _config(run: Finished) -> str:
    text = html.escape(run.entry.config.to_yaml())
    return (
        f"<details><summary>Configuration of {html.escape(run.entry.name)}</summary>"
        f"<pre>{text}</pre></details>"
    )

"""`compare(["tdmpc2:1m", "dreamerv3:size1m"], "wf/pendulum", seeds=3, steps=20_000, out="cmp")`.

`envs` may be several, or `suite` one that is shipped or your own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from worldflux.atomic import write_file
from worldflux.errors import ConfigError
from worldflux.trust import Trust
from worldflux_train.comparison import tables
from worldflux_train.comparison.entries import Entry, Source, plan
from worldflux_train.comparison.fit import require_fit
from worldflux_train.comparison.profiles import profiles
from worldflux_train.comparison.report import comparison_page
from worldflux_train.comparison.results import (
    Finished,
    Scale,
    Standing,
    read_run,
    scale_of,
    standings,
)
from worldflux_train.comparison.running import bring_to_end
from worldflux_train.comparison.suites import Source as SuiteSource
from worldflux_train.comparison.suites import places, steps_of
from worldflux_train.options import say
from worldflux_train.trainer import Outcome


@dataclass(frozen=True)
class Comparison:
    """Where a comparison lies and what came out; interrupted ones have no standings yet."""

    path: Path
    outcome: Outcome
    standings: list[Standing]
    scale: Scale | None = None

    @property
    def report(self) -> Path:
        """The page with everything."""
        return self.path / "report.html"


def compare(
    models: Sequence[str],
    envs: str | Sequence[str] = (),
    *,
    out: str | Path,
    steps: int | None = None,
    suite: SuiteSource | None = None,
    seeds: int | Sequence[int] = 3,
    configs: Mapping[str, Source] | None = None,
    overrides: Mapping[str, Any] | None = None,
    slots: Mapping[str, Mapping[str, Any]] | None = None,
    target: float | None = None,
    trust: Trust = (),
    console: Console | None = None,
) -> Comparison:
    """Train every model with every seed for `steps` agent steps and write the report to `out`.

    In one environment or several (`envs`), or in those of a `suite` (a name, a YAML file, a mapping
    as in such a file), which may also say how many steps. The same call again continues: finished
    runs are kept, an unfinished one is resumed. `target` is the score that counts as optimal
    (default: 1 where scores are normalised, else the best final score).
    `slots` are parts of yours by the name of a model and slot, as for `train`.
    `trust` holds the modules that the files of `configs` may name.
    """
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    parts = {
        f"{label}/slots.{slot}": part
        for label, own in (slots or {}).items()
        for slot, part in own.items()
    }
    overrides = {**(overrides or {}), **parts}
    entries = plan(
        models, places(envs, suite, trust), seeds=numbers, steps=steps_of(steps, suite),
        configs=configs, overrides=overrides, trust=trust,
    )  # fmt: skip
    require_fit(entries)
    path, runs = Path(out), []
    _require_layout(path, entries)
    for number, entry in enumerate(entries, 1):
        if console is not None:
            head = f"{entry.name} (run {number} of {len(entries)})"
            say(console, head, style="bold")
        if bring_to_end(entry, path / entry.folder, console) == "interrupted":
            return Comparison(path, "interrupted", [])
        runs.append(read_run(entry, path / entry.folder))
    scale = scale_of(runs, target)
    found = Comparison(path, "finished", standings(runs, scale), scale)
    _write(found, runs, scale)
    return found


def _require_layout(path: Path, entries: Sequence[Entry]) -> None:
    """Refuse a folder with a comparison on one environment for one on several, and the reverse."""
    folder = path / Path(entries[0].folder).parts[0]
    direct = any(folder.glob("seed-*/config.yaml"))
    within = any(folder.glob("*/seed-*/config.yaml"))
    if direct if not entries[0].alone else within:
        has, asked = ("one environment", "several") if direct else ("several environments", "one")
        raise ConfigError(
            f"{path} holds a comparison on {has}, and this one is on {asked}: choose another --out."
        )


def _write(found: Comparison, runs: list[Finished], scale: Scale) -> None:
    files = {
        "table.csv": tables.table_csv(found.standings),
        "table.md": tables.markdown(found.standings, scale),
        "table.tex": tables.latex(found.standings, scale),
        "tasks.csv": tables.tasks_csv(found.standings, scale),
        "tasks.md": tables.tasks_markdown(found.standings),
        "tasks.tex": tables.tasks_latex(found.standings),
        "curves.csv": tables.curves_csv(runs),
        "profile.csv": tables.profile_csv(profiles(found.standings)),
        found.report.name: comparison_page(runs, found.standings, scale, str(found.path)),
    }
    for name, text in files.items():
        write_file(found.path / name, text.encode())

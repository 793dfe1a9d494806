"""Progress on the terminal: rate, time left, and the latest numbers."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from worldflux_train.sinks.base import Row

_NOTHING: dict[str, Any] = {"rate": "", "numbers": ""}
MOST_LOSSES = 3


class ConsoleSink:
    """A progress bar on a terminal, a line per evaluation and per tenth of the run elsewhere."""

    def __init__(self, console: Console, total: int, step: int) -> None:
        self.console = console
        self.total = total
        self.first = step
        self._tenths = 10 * step // total
        self._latest: dict[str, Any] = {"return": "-", "loss": "-", "rate": "-"}
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._evaluation: TaskID | None = None
        self._task = self._progress.add_task("train", total=total, completed=step, **_NOTHING)
        self._progress.start()

    def write(self, row: Row) -> None:
        if "episode/return" in row:
            self._latest["return"] = f"{row['episode/return']:.1f}"
        self._latest["loss"] = loss_text(row) or self._latest["loss"]
        if "time/steps_per_second" in row:
            self._latest["rate"] = rate_text(row["time/steps_per_second"])
        latest = self._latest
        self._progress.update(
            self._task, completed=row["step"], rate=latest["rate"],
            numbers=f"return {latest['return']}  loss {latest['loss']}",
        )  # fmt: skip
        if "eval/return" in row:
            self.console.print(
                f"step {row['step']:>8,}  evaluation: return {row['eval/return']:.1f} ± "
                f"{row['eval/return_std']:.1f} over {row['eval/episodes']} episodes",
                highlight=False,
            )
        elif "time/left" in row and not self.console.is_terminal:
            self._line(row)

    def evaluating(self, played: int, episodes: int) -> None:
        """A bar of its own on a terminal, with the time left, until all episodes are played."""
        if self._evaluation is None:
            self._evaluation = self._progress.add_task("evaluate", total=episodes, **_NOTHING)
        self._progress.update(self._evaluation, completed=played)
        if played >= episodes:
            self._progress.remove_task(self._evaluation)
            self._evaluation = None

    def close(self) -> None:
        self._progress.stop()

    def _line(self, row: Row) -> None:
        tenths = 10 * int(row["step"]) // self.total
        if tenths == self._tenths:
            return
        self._tenths = tenths
        latest, left = self._latest, row["time/left"]
        self.console.print(
            f"step {row['step']:>8,} / {self.total:,}  {latest['rate']}, "
            f"{left / 60:.1f} min left, return {latest['return']}, loss {latest['loss']}",
            highlight=False,
        )


def loss_text(row: Row) -> str:
    """The loss, or the first few where an agent has one of each optimiser; "" without any."""
    if "train/loss" in row:
        return f"{row['train/loss']:.3g}"
    named = {key: value for key, value in row.items() if key.startswith("train/") and "loss" in key}
    return ", ".join(
        f"{_short(key)} {value:.3g}" for key, value in list(named.items())[:MOST_LOSSES]
    )


def _short(key: str) -> str:
    words = [word for word in key.split("/")[1:] if word != "loss"]
    return "/".join(words)


def rate_text(rate: float) -> str:
    """Steps per second, or below one seconds per step."""
    if rate >= 1 or rate <= 0:
        return f"{rate:.0f} steps/s"
    return f"{1 / rate:.1f} s/step"

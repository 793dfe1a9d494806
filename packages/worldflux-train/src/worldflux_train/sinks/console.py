"""Progress on the terminal: rate, time left, and the latest numbers."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from worldflux_train.sinks.base import Row


class ConsoleSink:
    """A progress bar on a terminal, a line per evaluation and per tenth of the run elsewhere."""

    def __init__(self, console: Console, total: int, step: int) -> None:
        self.console = console
        self.total = total
        self.first = step
        self._tenths = 10 * step // total
        self._latest: dict[str, Any] = {"return": "-", "loss": "-", "rate": "-"}
        self._progress = Progress(
            TextColumn("[bold]train"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("return {task.fields[return]}  loss {task.fields[loss]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=total, completed=step, **self._latest)
        self._progress.start()

    def write(self, row: Row) -> None:
        if "episode/return" in row:
            self._latest["return"] = f"{row['episode/return']:.1f}"
        if "train/loss" in row:
            self._latest["loss"] = f"{row['train/loss']:.3g}"
        if "time/steps_per_second" in row:
            self._latest["rate"] = rate_text(row["time/steps_per_second"])
        self._progress.update(self._task, completed=row["step"], **self._latest)
        if "eval/return" in row:
            self.console.print(
                f"step {row['step']:>8,}  evaluation: return {row['eval/return']:.1f} ± "
                f"{row['eval/return_std']:.1f} over {row['eval/episodes']} episodes",
                highlight=False,
            )
        elif "time/left" in row and not self.console.is_terminal:
            self._line(row)

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


def rate_text(rate: float) -> str:
    """Steps per second, or below one seconds per step."""
    if rate >= 1 or rate <= 0:
        return f"{rate:.0f} steps/s"
    return f"{1 / rate:.1f} s/step"

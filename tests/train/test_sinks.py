"""Where metrics go: the terminal, TensorBoard, and what is said where an extra is missing."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from worldflux.errors import ConfigError, StorageError
from worldflux.runs import Run
from worldflux_train import api
from worldflux_train.sinks.base import JsonlSink
from worldflux_train.sinks.console import ConsoleSink
from worldflux_train.sinks.tensorboard import TensorBoardSink
from worldflux_train.sinks.wandb import WandbSink

LOG = {"step": 50, "train/loss": 1.5, "time/steps_per_second": 12.0, "time/left": 90.0}


def test_console_without_a_terminal_prints_lines() -> None:
    text = io.StringIO()
    sink = ConsoleSink(Console(file=text, width=200), total=100, step=0)
    sink.write({"step": 40, "episode/return": 7.0})
    sink.write(LOG)
    sink.write({**LOG, "step": 51})  # the same tenth: no line
    sink.write({"step": 60, "eval/return": 8.0, "eval/return_std": 1.0, "eval/episodes": 3})
    sink.close()
    lines = text.getvalue().splitlines()
    assert [line.rstrip() for line in lines] == [
        "step       50 / 100  12 steps/s, 1.5 min left, return 7.0, loss 1.5",
        "step       60  evaluation: return 8.0 ± 1.0 over 3 episodes",
    ]


def test_console_on_a_terminal_shows_rate_and_time_left() -> None:
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    sink = ConsoleSink(console, total=100, step=0)
    sink.write({"step": 40, "episode/return": 7.0})
    sink.write(LOG)
    sink.close()
    shown = text.getvalue()
    for part in ("50/100", "12 steps/s", "left", "return 7.0", "loss 1.5"):
        assert part in shown


def test_an_evaluation_has_a_bar_of_its_own_on_a_terminal_and_nothing_in_a_file() -> None:
    shown = {}
    for terminal in (True, False):
        text = io.StringIO()
        console = Console(file=text, width=120, force_terminal=terminal)
        sink = ConsoleSink(console, total=100, step=0)
        for played in range(3):
            sink.evaluating(played, 3)
            sink._progress.refresh()
        sink.evaluating(3, 3)
        sink.close()
        shown[terminal] = text.getvalue()
    assert "evaluate" in shown[True] and "2/3" in shown[True] and "left" in shown[True]
    assert "3/3" not in shown[True]  # it is gone when all are played
    assert shown[False].strip() == ""


LOSSES: list[tuple[dict[str, Any], str]] = [
    ({"train/loss": 1.5, "train/loss/reward": 1.0}, "1.5"),
    ({"train/loss/model": 2.0, "train/loss/actor": 0.5}, "model 2, actor 0.5"),
    ({"train/model/loss": 2.0, "train/policy/loss": 0.5}, "model 2, policy 0.5"),
    ({f"train/loss/{name}": 1.0 for name in "abcd"}, "a 1, b 1, c 1"),
    ({"train/entropy": 1.0}, ""),
]


@pytest.mark.parametrize("row,text", LOSSES, ids=lambda x: x if isinstance(x, str) else "")
def test_every_agent_has_a_loss_in_its_line(row: dict[str, Any], text: str) -> None:
    from worldflux_train.sinks.console import loss_text

    assert loss_text({"step": 1, **row}) == text


def test_metrics_that_cannot_be_written_say_how_to_go_on(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    run.metrics_path.mkdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl could not be written: Is a directory"):
        JsonlSink(run).write({"step": 1})


def test_tensorboard_has_every_scalar(tiny: Any, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = tiny(overrides={"train.tensorboard": True, "train.steps": 60})
    api.train(config, tmp_path / "run")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for key in ("train/loss/reward", "eval/return", "episode/return"):
        rows = [r for r in Run.open(tmp_path / "run").metrics() if key in r]
        found = events.Scalars(key)
        assert [event.step for event in found] == [row["tick"] for row in rows]
        assert [event.value for event in found] == pytest.approx([row[key] for row in rows])


def test_missing_extras_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"tensorboard needs a package.*worldflux-train\[tens"):
        TensorBoardSink(tmp_path, 0)
    with pytest.raises(
        ConfigError, match=r"wandb='mine' needs a package.*worldflux-train\[wandb\]"
    ):
        WandbSink("mine", tmp_path, {})


class _Service:
    """A stand-in for the package wandb: remembers what each id was sent."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.metrics: list[tuple[str, str | None]] = []

    def init(self, *, id: str, **_: Any) -> Any:
        self.current = self.rows.setdefault(id, [])
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, row: dict[str, Any]) -> None:
        self.current.append(row)

    def finish(self) -> None:
        pass


def test_plots_go_by_tick_where_the_clock_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = _Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    rows = [{"step": 5, "tick": tick, "a": float(tick)} for tick in (5, 9, 13)]
    first = WandbSink("mine", tmp_path, {})
    for row in rows[:2]:
        first.write(row)  # killed in a burst, the newest checkpoint is of tick 9
    second = WandbSink("mine", tmp_path, {})
    second.write(rows[2])
    [sent] = service.rows.values()
    assert sent == rows


def test_wandb_gets_every_row_once_under_the_runs_own_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = _Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    rows = [{"step": s, "a": a} for s, a in ((1, 1.0), (2, 1.0), (2, 2.0), (3, 1.0), (3, 2.0))]
    first = WandbSink("mine", tmp_path, {})
    for row in rows[:4]:
        first.write(row)  # killed here, the newest checkpoint is of step 1
    second = WandbSink("mine", tmp_path, {})
    for row in rows[1:]:
        second.write(row)
    [(identity, sent)] = service.rows.items()
    assert sent == [{**row, "tick": row["step"]} for row in rows]
    assert ("*", "tick") in service.metrics
    (tmp_path / "wandb.json").unlink()  # the folder is used for another run
    WandbSink("mine", tmp_path, {}).write(rows[0])
    assert len(service.rows) == 2 and len(service.rows[identity]) == len(rows)


def test_slow_runs_are_told_in_seconds_per_step() -> None:
    from worldflux_train.sinks.console import rate_text

    assert [rate_text(rate) for rate in (120.4, 1.0, 0.25, 0.0)] == [
        "120 steps/s", "1 steps/s", "4.0 s/step", "0 steps/s",
    ]  # fmt: skip

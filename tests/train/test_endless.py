"""Environments that never end: evaluations are bounded, say so, and stop on a signal."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Any

import pytest

from worldflux.runs import Run
from worldflux_train import api, evaluation

ENDLESS = "gym/walk_env:Endless"


def test_an_evaluation_of_endless_episodes_ends_and_says_so(
    tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(ENDLESS, {"train.steps": 32, "train.eval_max_steps": 7})
    with caplog.at_level(logging.WARNING):
        api.train(config, tmp_path / "run")
    rows = [row for row in Run.open(tmp_path / "run").metrics() if "eval/return" in row]
    assert rows[0]["step"] == 0 and rows[-1]["step"] == 32
    assert {(row["eval/length"], row["eval/truncated"]) for row in rows} == {(7.0, 3)}
    assert "3 of 3 evaluated episodes had not ended after train.eval_max_steps=7" in caplog.text
    again = api.evaluate_run(
        tmp_path / "run", episodes=20, trust=("walk_env",)
    )  # more than there are environments
    assert again.lengths == [7] * 20 and again.truncated == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_an_evaluation(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals,
    assert_same_run: Any,
) -> None:  # fmt: skip
    config = tiny(ENDLESS, {"train.steps": 40, "train.eval_max_steps": 50, "train.eval_every": 20})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    api.train(config, whole)
    played = evaluation._Games.count
    steps = 0

    def count(games: Any, stepper: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 60:  # in the second evaluation, at step 20
            signal.raise_signal(number)
        played(games, stepper)

    monkeypatch.setattr(evaluation._Games, "count", count)
    stopped = api.train(config, parts)
    assert (stopped.outcome, stopped.step, steps) == ("interrupted", 20, 60)
    assert api.resume(parts, trust=("walk_env",)).outcome == "finished"
    assert_same_run(whole, parts, 40)


def test_progress_of_a_long_evaluation_is_told(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluation, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        api.train(tiny(overrides={"train.steps": 1}), tmp_path / "run")
    assert "evaluation: 0 of 3 episodes, the running ones up to 1 steps, none has" in caplog.text
    assert "evaluation: 1 of 3 episodes" in caplog.text and " s left" in caplog.text


def test_recording_stops_on_a_signal(tiny: Any, tmp_path: Path) -> None:
    api.train(tiny(overrides={"train.steps": 10}), tmp_path / "run")
    from worldflux_train.recording import record_episodes

    config, agent = api.load_run(tmp_path / "run")
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(KeyboardInterrupt):
        record_episodes(config, agent, 2, 10**9, seed=0, stop=stop)
    assert asked == 5  # three steps were taken, the fourth was the last

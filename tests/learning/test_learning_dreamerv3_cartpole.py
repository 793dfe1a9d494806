"""The README's recipe learns CartPole: random play gets 22."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldflux.runs import Run
from worldflux_train import resolve, train


@pytest.mark.slow
def test_dreamerv3_learns_cartpole(tmp_path: Path) -> None:
    config = resolve(config="dreamerv3-cartpole", overrides={"train.seed": 3})
    train(config, tmp_path / "run")
    rows = [row for row in Run.open(tmp_path / "run").metrics() if "eval/return" in row]
    returns = {row["step"]: row["eval/return"] for row in rows}
    late = [value for step, value in returns.items() if step > config.train.steps // 2]
    assert returns[0] < 60
    assert max(late) >= 400, returns
    assert late[-1] >= 150, returns  # and it stays

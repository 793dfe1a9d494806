"""TD-MPC2 learns to swing up the pendulum within 5,000 steps, and not without rewards to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worldflux_train.api import train
from worldflux_train.config import resolve

pytestmark = pytest.mark.slow
GATE = -200.0  # mean of 5 episodes; a random policy gets about -1200


def evaluated(out: Path, **overrides: Any) -> float:
    """Mean return of the last evaluation, in environments of its own, of the shipped recipe."""
    config = resolve(config="tdmpc2-pendulum", overrides=overrides)
    assert config.train.steps <= 5000 and config.train.eval_episodes == 5
    rows = train(config, out).run.metrics()
    return next(float(row["eval/return"]) for row in reversed(rows) if "eval/return" in row)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tdmpc2_learns_pendulum(tmp_path: Path, seed: int) -> None:
    found = evaluated(tmp_path / "run", **{"train.seed": seed, "train.eval_every": 0})
    assert found >= GATE, found


def test_tdmpc2_without_rewards_does_not(tmp_path: Path) -> None:
    """The control: everything is trained except what rewards teach."""
    blind = {"model.scale_reward": 0.0, "model.scale_value": 0.0}
    found = evaluated(tmp_path / "run", **blind, **{"train.steps": 2500, "train.eval_every": 0})
    assert found < 2 * GATE, found

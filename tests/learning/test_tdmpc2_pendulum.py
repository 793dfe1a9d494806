"""TD-MPC2 learns to swing up the pendulum within 5,000 steps, and not without rewards to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worldflux_train.api import evaluate_run, train
from worldflux_train.config import resolve

pytestmark = pytest.mark.slow
GATE = -200.0  # mean of 5 episodes; a random policy gets about -1230


def returns(out: Path, **overrides: Any) -> float:
    """Train the shipped recipe; the mean of 5 episodes with its best checkpoint.

    The episodes are none of those by which the checkpoint was chosen.
    """
    config = resolve(config="tdmpc2-pendulum", overrides=overrides)
    assert config.train.steps <= 5000
    train(config, out)
    return evaluate_run(out, episodes=5, seed=100 + config.train.seed).mean


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tdmpc2_learns_pendulum(tmp_path: Path, seed: int) -> None:
    found = returns(tmp_path / "run", **{"train.seed": seed})
    assert found >= GATE, found


def test_tdmpc2_without_rewards_does_not(tmp_path: Path) -> None:
    """The control: everything is trained except what rewards teach."""
    blind = {"model.scale_reward": 0.0, "model.scale_value": 0.0, "train.steps": 2500}
    found = returns(tmp_path / "run", **blind)
    assert found < 2 * GATE, found

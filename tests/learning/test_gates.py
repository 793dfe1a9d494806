"""Every family learns what its recipe says, on three seeds, and does not when it is kept from it.

A run's score is its last evaluation: final weights, in environments of their own. The pendulum is
judged by 20 episodes: of draws of five starts, even perfect play misses -200 in one of 27.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from worldflux_train.api import train
from worldflux_train.config import resolve

pytestmark = pytest.mark.slow


class Gate(NamedTuple):
    """A recipe, the least score it has to reach, and what a run without `missing` may reach."""

    recipe: str
    score: float
    missing: Mapping[str, float]
    control: float


GATES = [
    Gate("tdmpc2-pendulum", -200.0, {"model.scale_reward": 0.0, "model.scale_value": 0.0}, -400.0),
    Gate("dreamerv3-cartpole", 150.0, {"model.scale_con": 0.0, "agent.scale_repval": 0.0}, 60.0),
    Gate("dreamerv2-catch", 0.6, {"model.scale_reward": 0.0}, 0.0),
    Gate("dreamerv1-cartpole", 100.0, {"model.scale_continue": 0.0}, 60.0),
    Gate("planet-catch", 0.6, {"model.scale_reward": 0.0}, 0.0),
    Gate("rssm-catch", 0.6, {"model.scale_reward": 0.0}, 0.0),
]
NAMES = [gate.recipe for gate in GATES]


def score(gate: Gate, out: Path, **overrides: Any) -> float:
    """Mean return of the last evaluation."""
    overrides = {"train.eval_every": 0, **overrides}
    rows = train(resolve(config=gate.recipe, overrides=overrides), out).run.metrics()
    return next(float(row["eval/return"]) for row in reversed(rows) if "eval/return" in row)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("gate", GATES, ids=NAMES)
def test_learns(gate: Gate, seed: int, tmp_path: Path) -> None:
    found = score(gate, tmp_path / "run", **{"train.seed": seed})
    assert found >= gate.score, found


@pytest.mark.parametrize("gate", GATES, ids=NAMES)
def test_does_not_learn_without(gate: Gate, tmp_path: Path) -> None:
    """The control: everything is trained except what the task is known by."""
    found = score(gate, tmp_path / "run", **gate.missing)
    assert found < gate.control, found

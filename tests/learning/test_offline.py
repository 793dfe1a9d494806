"""DreamerV3 learns catch from recorded random steps alone; the environment only judges."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldflux_train.api import train
from worldflux_train.config import resolve
from worldflux_train.data.collecting import collect

pytestmark = pytest.mark.slow
RECORDED, UPDATES = 20_000, 1_200
SMALL = {
    "model.deter": 64, "model.hidden": 64, "model.units": 64, "model.stoch": 8, "model.classes": 8,
    "model.layers": 1, "model.blocks": 1, "model.horizon": 20, "agent.policy_layers": 1,
    "agent.value_layers": 1, "agent.imag_length": 9, "agent.imag_last": 2, "agent.batch": 16,
    "agent.length": 8, "agent.train_ratio": 128, "agent.lr": 1e-3, "agent.warmup": 50,
}  # fmt: skip
RUN = {
    "train.collect": False, "train.round": 20, "train.threads": 1, "train.device": "cpu",
    "train.eval_first": False, "train.eval_every": 0, "train.eval_episodes": 50,
    "train.log_every": 100,
}  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_catch_from_20k_random_steps(seed: int, tmp_path: Path) -> None:
    collect("wf/catch", tmp_path / "data", RECORDED, envs=16, seed=seed)
    overrides = {**SMALL, **RUN, "data.path": str(tmp_path / "data"), "train.seed": seed}
    config = resolve(
        config="dreamerv3-cartpole", env_id="wf/catch", overrides=overrides, steps=UPDATES
    )
    rows = list(train(config, tmp_path / "run").run.metrics())
    assert all(row.get("agent_steps", 0) == 0 for row in rows), "nothing was collected"
    found = next(row["eval/return"] for row in reversed(rows) if "eval/return" in row)
    assert found >= 0.6, found

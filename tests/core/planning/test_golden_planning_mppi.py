"""MPPI against the published TD-MPC2 planner, its model replaced by its recorded values."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.planning import MPPI
from worldflux.planning.config import MPPIConfig
from worldflux.specs import TensorSpec

FILE = Path(os.environ.get("WORLDFLUX_GOLDEN", "../shared/golden")) / "tdmpc2.safetensors"
GROUPS = {"plan_t0": "main", "plan_warm": "main", "epi_plan_t0": "epi", "epi_plan_warm": "epi"}
MODEL_ONLY = {"obs", "eps_pi", "eps_value", "idx_value"}
COVERED = {"prev_mean", "randn", "exponential", "randn_action"} | {
    "value",
    "elite_idx",
    "score",
    "mean",
    "std",
    "actions",
    "action",
}
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"no golden file at {FILE}")


def load(group):
    """The tensors of one group by `in/...` and `out/...`, and the file's metadata."""
    with safe_open(FILE, "pt") as file:
        names = [name for name in file.keys() if name.split("/")[1] == group]  # noqa: SIM118
        tensors = {name.replace(f"/{group}/", "/"): file.get_tensor(name) for name in names}
        return tensors, file.metadata()


class Recorded:
    """A model that scores and proposes what the reference did."""

    def __init__(self, tensors):
        self.tensors = tensors

    def require(self, capability, message=None):
        return None

    def propose(self, state, n, horizon, conditions=None, *, rand=None):
        return self.tensors["out/actions"][:, :n].transpose(0, 1).unsqueeze(0)

    def score(self, state, actions, conditions=None, *, rand=None):
        return rand.given("value")


@pytest.mark.parametrize("group", GROUPS)
def test_golden_mppi(group):
    tensors, metadata = load(group)
    names = {name.split("/")[1] for name in tensors}
    assert names <= MODEL_ONLY | COVERED, names - MODEL_ONLY - COVERED
    atol, rtol = json.loads(metadata["atol"]), float(metadata.get("rtol", 1e-5))
    iterations, horizon, sampled, size = tensors["in/randn"].shape
    proposals = tensors["in/eps_pi"].shape[1]
    config = MPPIConfig(
        horizon=horizon,
        candidates=sampled + proposals,
        proposals=proposals,
        elites=tensors["out/elite_idx"].shape[1],
        iterations=iterations,
    )
    planner = MPPI(TensorSpec((size,)), config)
    draws = {
        "noise": tensors["in/randn"].transpose(1, 2).unsqueeze(1),
        "choice": tensors["in/exponential"].unsqueeze(0),
        "score/value": tensors["out/value"].unsqueeze(1),
    }
    previous, explore = None, "in/randn_action" in tensors
    if explore:
        draws["explore"] = tensors["in/randn_action"].unsqueeze(0)
        mean = tensors["in/prev_mean"].unsqueeze(0)
        previous = State({"mean": mean, "warm": torch.ones(1, dtype=torch.bool)})
    trace: list = []
    rand = Rand(draws=draws)
    plan = planner(
        Recorded(tensors),
        State({"z": torch.zeros(1, 1)}),
        previous=previous,
        rand=rand,
        explore=explore,
        trace=trace,
    )

    rand.check_used()

    def check(name, actual):
        limit = atol[f"out/{group}/{name}"]
        torch.testing.assert_close(actual, tensors[f"out/{name}"], atol=limit, rtol=rtol)

    assert torch.equal(torch.cat([s["elite_idx"] for s in trace]), tensors["out/elite_idx"])
    check("actions", trace[0]["actions"][0].transpose(0, 1))
    for name in ("score", "mean", "std"):
        check(name, torch.cat([step[name] for step in trace]))
    check("action", plan.tensor[0, 0])

"""The JEPA families' costs in process CPU time on one thread, raw and normalised."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.matmul_peak import Case, measured_rows
from worldflux.core.batch import Batch
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.planning.config import CEMConfig
from worldflux.planning.create import create_planner
from worldflux.specs import TensorSpec
from worldflux_jepa.ijepa.agent import IJEPALearner
from worldflux_jepa.ijepa.config import PRESETS as IJEPA
from worldflux_jepa.lewm.config import PRESETS as LEWM
from worldflux_jepa.lewm.world_model import LeWorldModel

IMAGE = {"image": TensorSpec((3, 224, 224), "uint8", low=0, high=255)}
ACTION = {"action": TensorSpec((2,), low=-1.0, high=1.0)}


def rows() -> list[dict[str, object]]:
    """One row per case: name, cpu_ms, normalised, target, peer (ijepa, stable-worldmodel)."""
    return measured_rows(cases)


def cases() -> list[Case]:
    """The operations of the project's benchmark table."""
    update, plan = ijepa_update(), lewm_plan()
    update_name, plan_name = "ijepa ViT-S/16 224 update, B4", "lewm CEM, 5 iterations of 300"
    return [
        Case(update_name, update, target=105.0, peer=127.0),
        Case(plan_name, plan, target=400.0, peer=552.0),
        Case(f"{update_name}, bf16", update, target=60.0, bf16=True),
        Case(f"{plan_name}, bf16", plan, target=200.0, bf16=True),
    ]


def ijepa_update(size: int = 4) -> Callable[[], object]:
    """One update of encoder and predictor on `size` images, and of the slow target."""
    config = IJEPA["small"].with_(**{"agent.batch": size})
    learner, rand = IJEPALearner(config, IMAGE), Rand.seeded(0)
    learner.total = {"encoder": 1000}
    first = torch.ones(size, 1, dtype=torch.bool)
    images = torch.randint(0, 256, (size, 1, 3, 224, 224)).to(torch.uint8)
    batch = Batch({"image": images}, first, first, torch.zeros_like(first))
    return lambda: learner.update(batch, "encoder", rand=rand)


def lewm_plan() -> Callable[[], object]:
    """One plan from an encoded window of three frames toward an encoded goal."""
    model = LeWorldModel(LEWM["base"], IMAGE, ACTION).eval()
    config = CEMConfig(horizon=5, candidates=300, elites=30, iterations=5)
    planner = create_planner("cem", model.required_action(), config)
    rand, goal = Rand.seeded(0), ConditionPayload(goal=torch.randn(1, model.own.embed))
    state, block = model.initial(1), torch.zeros(1, model.stride, 2)
    first = torch.zeros(1, dtype=torch.bool)
    for _ in range(model.own.history):
        seen = {"image": torch.randint(0, 256, (1, 3, 224, 224)).to(torch.uint8)}
        with torch.no_grad():
            state = model.observe(state, block, seen, first)
    return lambda: planner(model, state, conditions=goal, rand=rand)


if __name__ == "__main__":
    for row in rows():
        print(row)

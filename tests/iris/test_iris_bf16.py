"""bf16 as an opt-in: the losses of both families are those of float32, within rounding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from worldflux import create_agent
from worldflux.core.rand import Rand
from worldflux.testing import random_batch

from .conftest import CHOICE, SMALL

SMALLER: dict[str, dict[str, Any]] = {
    "iris": {"patch": 4, "channels": 16, "dim": 32, "quantize_after": 0, "vocab": 16},
    "delta-iris": {"dim": 32, "vocab": 16},
}


@pytest.mark.parametrize("phase", ["tokenizer", "world_model"])
@pytest.mark.parametrize("family", list(SMALLER))
def test_losses_in_bf16_are_near_those_of_float32(family: str, phase: str) -> None:
    agent = create_agent(
        f"{family}:tiny", obs_spec=SMALL, action_spec=CHOICE, model=SMALLER[family]
    )
    batch, found = random_batch(SMALL, CHOICE, 8, 6, boundary=False, seed=1), {}
    for precision in ("fp32", "bf16"):
        twin = copy.deepcopy(agent)
        twin.precision = precision
        found[precision] = twin.update(batch, phase, rand=Rand.seeded(0)).metrics
    names = [name for name in found["fp32"] if name.startswith("loss")]
    assert len(names) > 2
    for name in names:
        exact, rough = (torch.as_tensor(x[name]) for x in found.values())
        assert rough.dtype == torch.float32, name
        assert torch.isclose(rough, exact, rtol=2e-2, atol=2e-3), (name, rough, exact)
    assert any(float(found["bf16"][name]) != float(found["fp32"][name]) for name in names)


@pytest.mark.parametrize("family", list(SMALLER))
def test_dreams_in_bf16_are_near_those_of_float32(family: str) -> None:
    """Logits along given tokens: what is drawn from them would part where two are near."""
    agent = create_agent(
        f"{family}:tiny", obs_spec=SMALL, action_spec=CHOICE, model=SMALLER[family]
    )
    model = agent.world_model.eval()
    image = random_batch(SMALL, CHOICE, 4, 1, seed=2).obs["image"][:, 0]
    given = {"tokens": torch.randint(16, (4, model.dynamics_model.tokens))}
    forced = {**given, "reward": torch.ones(4), "end": torch.zeros(4)}
    logits = []
    for bf16 in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            state = model.encode({"image": image})
            for _ in range(3):
                state = model.transition(
                    state, torch.zeros(4, dtype=torch.long), rand=Rand(draws=forced)
                )
            logits.append(state["reward_logits"])
    assert logits[1].dtype == torch.float32 and not torch.equal(*logits)
    torch.testing.assert_close(logits[1], logits[0], rtol=2e-2, atol=5e-3)

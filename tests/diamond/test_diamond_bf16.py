"""bf16 as an opt-in: DIAMOND's and DiT's losses are those of float32, within rounding."""

from __future__ import annotations

import copy

import pytest
import torch

from worldflux import create_agent
from worldflux.core.rand import Rand
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch

OBS = {"image": TensorSpec((3, 16, 16), "uint8", low=0, high=255)}
ACTION = {"action": TensorSpec((), "int64", n=3)}


@pytest.mark.parametrize("phase", ["denoiser", "reward_end"])
def test_losses_in_bf16_are_near_those_of_float32(phase: str) -> None:
    agent = create_agent("diamond:tiny", obs_spec=OBS, action_spec=ACTION)
    torch.nn.init.normal_(
        agent.world_model.dynamics_model.denoiser.network.conv_out.weight, std=0.05
    )
    plan = agent.training_plan().phase(phase)
    batch = random_batch(OBS, ACTION, 8, plan.total, boundary=False, seed=1)
    batch.context, found = plan.context, {}
    for precision in ("fp32", "bf16"):
        twin = copy.deepcopy(agent)
        twin.precision = precision
        found[precision] = twin.update(batch, phase, rand=Rand.seeded(0)).metrics
    for name in [name for name in found["fp32"] if name.startswith("loss")]:
        exact, rough = (torch.as_tensor(x[name]) for x in found.values())
        assert torch.isclose(rough, exact, rtol=2e-2, atol=2e-3), (name, rough, exact)
    assert float(found["bf16"]["loss"]) != float(found["fp32"]["loss"])


def test_a_frame_in_bf16_is_near_that_of_float32() -> None:
    """What three steps make of the same noise: within a few of 256 levels."""
    agent = create_agent("diamond:tiny", obs_spec=OBS, action_spec=ACTION)
    denoiser = agent.world_model.dynamics_model.denoiser
    torch.nn.init.normal_(denoiser.network.conv_out.weight, std=0.05)
    history = denoiser.config.history
    noise, frames = torch.randn(2, 3, 16, 16), torch.rand(2, history, 3, 16, 16)
    actions, shown = torch.zeros(2, history, 3), []
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            shown.append(denoiser.sample(noise, frames, actions)[-1])
    apart = (shown[0] - shown[1]).abs()
    assert float(apart.max()) > 0 and float(apart.mean()) < 2e-2

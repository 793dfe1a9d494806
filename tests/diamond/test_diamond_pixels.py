"""Rewards, ends and policy read normalised pixels where that is wanted; frames stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from worldflux import create_agent
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.rand import Rand
from worldflux.specs import TensorSpec
from worldflux_diamond.diamond.agent import DiamondAgent

OBS = {"image": TensorSpec((3, 16, 16), "uint8", low=0, high=255)}
ACTION = {"action": TensorSpec((), "int64", n=3)}


def started(phase: str, **model: Any) -> DiamondAgent:
    """An agent whose phase began, on three episodes of a dot that moves."""
    agent = create_agent("diamond:tiny", obs_spec=OBS, action_spec=ACTION, model=model)
    assert isinstance(agent, DiamondAgent)
    rows, step, none = 10, np.arange(10), np.zeros(10)
    image = np.full((rows, 3, 16, 16), 30, np.uint8)
    image[step, :, 5, step] = 220
    episode = {
        "obs.image": image, "action": none.astype(int), "reward": none.astype("float32"),
        "is_first": step == 0, "is_last": step == 9, "is_terminal": step == 9,
    }  # fmt: skip
    source = EpisodeSource([episode] * 3, agent.columns, seed=0)
    agent.begin(phase, source, Rand.seeded(0))
    return agent


@pytest.mark.parametrize("phase", ["reward_end", "actor_critic"])
def test_a_phase_fits_its_own_pixels(phase: str) -> None:
    agent = started(phase)
    found = {
        "reward_end": agent.world_model.dynamics_model.reward_end.pixels,
        "actor_critic": agent.actor.pixels,
    }
    other = found.pop("actor_critic" if phase == "reward_end" else "reward_end")
    assert torch.equal(other.mean, torch.zeros_like(other.mean))
    mean = found[phase].mean  # of frames in [-1, 1], without the black ones of short sequences
    assert float(mean[0, 0, 0]) == pytest.approx(2 * 30 / 255 - 1, abs=1e-5)
    assert float(mean[0, 5, :10].min()) > float(mean[0, 0, 0]) + 0.02


def test_the_denoiser_and_the_published_preset_see_frames_as_they_are() -> None:
    for agent in (started("denoiser"), started("reward_end", whiten=False)):
        seen = agent.world_model.dynamics_model.reward_end.pixels
        frame = torch.rand(2, 3, 16, 16) * 2 - 1
        assert torch.equal(seen(frame), frame)
    assert not [name for name in agent.state_dict() if "pixels" in name]

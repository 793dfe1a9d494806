"""DIAMOND and DiT as a user meets them: runs that resume, imagination, sessions, planners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from worldflux import Session
from worldflux.core.rand import Rand
from worldflux.planning import PlanningAgent
from worldflux.planning.config import PlanningAgentConfig
from worldflux_diamond.diamond.agent import DiamondAgent
from worldflux_train.api import imagine_run, load_agent, train
from worldflux_train.config import resolve
from worldflux_train.data.drawn import write_shapes

pytestmark = pytest.mark.slow  # processes, or runs of more than ten seconds

SMALL: dict[str, Any] = {
    "model.denoiser.channels": (8, 8), "model.denoiser.depths": (1, 1),
    "model.denoiser.attention": (False, False), "model.denoiser.cond": 16,
    "model.reward_end.channels": (8, 8), "model.reward_end.depths": (1, 1),
    "model.reward_end.attention": (False, False), "model.reward_end.lstm": 8,
    "agent.channels": (8, 8), "agent.lstm": 8, "agent.horizon": 3, "agent.start": 60,
    "agent.collect_until": 60, "agent.denoiser.burst": 3, "agent.reward_end.burst": 3,
    "agent.actor_critic.burst": 3, "agent.denoiser.batch": 4, "agent.reward_end.batch": 4,
    "agent.actor_critic.batch": 2, "train.eval_episodes": 1, "train.envs": 2,
    "train.eval_every": 0,
}  # fmt: skip


PLANNER = {"horizon": 2, "candidates": 4, "elites": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe in small: three bursts of three updates each."""
    out = tmp_path_factory.mktemp("runs") / "diamond"
    config = resolve(config="diamond-catch", overrides=SMALL, steps=70)
    train(config, out)
    return out


def test_the_pictures_of_imagination(run: Path) -> None:
    found, video = imagine_run(run, horizon=4, context=2, episodes=2, kind="gif")
    assert video.exists() and {"image", "reward"} <= found.error.keys()
    assert found.stages["denoising"].shape == (4, 3, 16, 16)  # the noise, and three steps
    picture = next((run / "videos").glob("imagined-*-denoising.png"))
    assert np.asarray(Image.open(picture)).ndim == 3


def test_a_session_and_a_planner(run: Path) -> None:
    agent = load_agent(run)
    assert isinstance(agent, DiamondAgent)
    model = agent.world_model
    start = model.encode({"image": torch.zeros(1, 3, 16, 16, dtype=torch.uint8)})
    session = Session(model, start, rows=1)
    frame = session.step(torch.tensor([1]))
    assert frame.image.shape == (1, 3, 16, 16) and frame.reward is not None
    settings = PlanningAgentConfig.from_dict({"planner": {"kind": "cem", **PLANNER}})
    planning = PlanningAgent(model, settings)
    obs = {"image": torch.zeros(1, 3, 16, 16, dtype=torch.uint8)}
    action, _ = planning.act(obs, None, torch.tensor([True]), rand=Rand.seeded(0))
    assert action.primary() is not None


def test_images_from_a_folder(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "shapes", 40, 16, classes=3)
    overrides = {
        "model.width": 16, "model.depth": 1, "model.heads": 2, "model.spacing": "3",
        "agent.batch": 8, "agent.samples": 2, "train.eval_every": 0, "train.eval_batches": 1,
    }  # fmt: skip
    config = resolve("dit:tiny", overrides={**overrides, "data.path": str(data)}, steps=3)
    found = train(config, tmp_path / "run").run
    assert any("eval/samples/nearest_label" in row for row in found.metrics())
    assert list((tmp_path / "run" / "videos").glob("evaluation-*-samples.png"))
    _, video = imagine_run(tmp_path / "run", episodes=3, kind="gif")
    assert video.exists()

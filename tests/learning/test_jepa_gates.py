"""The JEPA families learn what they are for on three seeds, and do not when kept from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.core.agent import Learner
from worldflux.episodes import Episodes
from worldflux.shapes import draw_shapes
from worldflux_jepa.ijepa.agent import IJEPALearner
from worldflux_jepa.probing import accuracy, linear_probe
from worldflux_train.api import load_learner, train
from worldflux_train.config import resolve
from worldflux_train.data.collecting import collect
from worldflux_train.data.drawn import write_shapes
from worldflux_train.planning import plan_run

pytestmark = pytest.mark.slow
SEEDS = [0, 1, 2]
SIDE, HOLD = 32, 5


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(folder, 4000, 1000, classes=8, seed=0)
    return folder


def probed(learner: Learner, seed: int) -> float:
    """The share of 1,000 new shapes whose class a linear probe tells, fitted on 1,000 others."""
    images, labels = draw_shapes(2000, seed=100 + seed, classes=8)
    with torch.no_grad(), learner.eval().as_published():
        found = [learner.world_model.encode({"image": torch.from_numpy(part)})["rep"].mean(1)
                 for part in np.array_split(images, 20)]  # fmt: skip
    x, y = torch.cat(found), torch.from_numpy(labels)
    return accuracy(linear_probe(x[::2], y[::2], x[1::2], 8), y[1::2])


@pytest.mark.parametrize("seed", SEEDS)
def test_ijepa_sees_shapes(shapes: Path, seed: int, tmp_path: Path) -> None:
    """15 points above an encoder that has learnt nothing."""
    config = resolve(
        config="ijepa-shapes", overrides={"data.path": str(shapes), "train.seed": seed}
    )
    train(config, tmp_path / "run")
    learner = load_learner(tmp_path / "run")[1]
    torch.manual_seed(seed)
    blank = IJEPALearner(learner.config, learner.obs_spec)  # type: ignore[arg-type]
    assert probed(learner, seed) >= probed(blank, seed) + 0.15


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30,000 steps of walks through two rooms, each random action held for about 5 steps."""
    folder = tmp_path_factory.mktemp("data") / "rooms"
    collect(
        "wf/two-room", folder, 30_000, envs=50, hold=HOLD, obs="pixels", size=SIDE, mode="native"
    )
    return folder


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 further steps, with the place (and the door's) as `obs.state`."""
    folder = tmp_path_factory.mktemp("data") / "places"
    collect(
        "wf/two-room",
        folder,
        10_000,
        envs=50,
        hold=HOLD,
        seed=1,
        obs="both",
        size=SIDE,
        mode="native",
    )
    return folder


def trained(
    model: str, rooms: Path, out: Path, seed: int, **overrides: Any
) -> tuple[float, Learner]:
    """The share of goals reached after 300 updates at batch 64, and the learner."""
    settings = {"data.path": str(rooms), "train.seed": seed, **overrides}
    train(resolve(config=f"{model}-two-room", overrides=settings), out)
    found, _ = plan_run(out, "wf/two-room", episodes=50, goal_offset=25, budget=50)
    assert found.success is not None
    return found.success, load_learner(out)[1]


def read_out(learner: Learner, places: Path) -> Tensor:
    """R^2 (2,) of a quadratic read-out of the place from the representation."""
    episodes = [episode for episode in Episodes(places) if len(episode["is_first"]) > 10]
    images = np.concatenate([episode["obs.image"][::5] for episode in episodes])
    y = torch.from_numpy(np.concatenate([e["obs.state"][::5, :2] for e in episodes]))
    parts = [torch.from_numpy(part) for part in np.array_split(images, 20)]
    with torch.no_grad():
        z = torch.cat([learner.world_model.encode({"image": x})["rep"].flatten(1) for x in parts])
    one, other = torch.triu_indices(z.shape[1], z.shape[1])
    z = torch.cat([z, z[:, one] * z[:, other], torch.ones(len(z), 1)], 1).double()
    half, y = len(z) // 2, y.double()
    ridge = 1e-3 * torch.eye(z.shape[1]).double()
    weights = torch.linalg.solve(z[:half].T @ z[:half] + ridge, z[:half].T @ y[:half])
    error = (z[half:] @ weights - y[half:]).square().sum(0)
    return 1 - error / (y[half:] - y[half:].mean(0)).square().sum(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_lewm_plans_its_way(rooms: Path, places: Path, seed: int, tmp_path: Path) -> None:
    success, learner = trained("lewm", rooms, tmp_path / "run", seed)
    assert float(read_out(learner, places).min()) >= 0.95
    assert success >= 0.75


@pytest.mark.parametrize("seed", SEEDS)
def test_lewm_does_not_without_sigreg(rooms: Path, seed: int, tmp_path: Path) -> None:
    assert trained("lewm", rooms, tmp_path / "run", seed, **{"model.sigreg": 0.0})[0] <= 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_jepa_wm_plans_its_way(rooms: Path, seed: int, tmp_path: Path) -> None:
    assert trained("jepa-wm", rooms, tmp_path / "run", seed)[0] >= 0.6

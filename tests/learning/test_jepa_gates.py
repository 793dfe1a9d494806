"""The JEPA families learn what they are for on three seeds, and do not when kept from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.columns import step_columns
from worldflux.core.agent import Learner
from worldflux.episodes import Episodes, EpisodeWriter
from worldflux.shapes import draw_shapes
from worldflux.specs import TensorSpec
from worldflux_envs.wf.games import game
from worldflux_envs.wf.rows import Rows
from worldflux_jepa.ijepa.agent import IJEPALearner
from worldflux_jepa.probing import accuracy, linear_probe
from worldflux_train.api import load_learner, train
from worldflux_train.config import resolve
from worldflux_train.data.drawn import write_shapes
from worldflux_train.planning import plan_run

pytestmark = pytest.mark.slow
SEEDS = [0, 1, 2]
SIDE, STEPS, HOLD = 32, 100, 5


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
    """300 walks of 100 steps through two rooms, each random action held for about 5 steps."""
    folder = tmp_path_factory.mktemp("data") / "rooms"
    write_walks(folder, 300, seed=1)
    return folder


def write_walks(folder: Path, count: int, seed: int) -> None:
    rows, generator = Rows(game("two-room")), torch.Generator().manual_seed(seed)
    rows.reset(torch.arange(count) + 1000 * seed)
    state = {**rows.state, "target": torch.full((count, 2), 9.0).double()}
    action, pictures, places, actions = torch.zeros(count, 2), [], [], []
    for step in range(STEPS + 1):
        pictures.append(rows.game.picture(state, SIDE))
        places.append(state["point"].float())
        new = (torch.rand(count, generator=generator) < 1 / HOLD) | (step == 0)
        drawn = torch.rand(count, 2, generator=generator) * 2 - 1
        action = torch.where(new[:, None], drawn, action)
        actions.append(action if step < STEPS else torch.zeros_like(action))
        state = rows.advance(state, action)[0]
    image = {"image": TensorSpec((3, SIDE, SIDE), "uint8", low=0, high=255)}
    space, place = TensorSpec((2,), low=-1.0, high=1.0), {"place": TensorSpec((2,))}
    writer = EpisodeWriter(folder, step_columns(image, space, extra=place))
    index = np.arange(STEPS + 1)
    for n in range(count):
        writer.write({
            "obs.image": torch.stack([x[n] for x in pictures]).numpy(),
            "extra.place": torch.stack([x[n] for x in places]).numpy(),
            "action": torch.stack([x[n] for x in actions]).numpy(),
            "reward": np.zeros(STEPS + 1, np.float32), "is_first": index == 0,
            "is_last": index == STEPS, "is_terminal": np.zeros(STEPS + 1, bool),
        })  # fmt: skip


def trained(
    model: str, rooms: Path, out: Path, seed: int, **overrides: Any
) -> tuple[float, Learner]:
    """The share of goals reached after 300 updates at batch 64, and the learner."""
    settings = {"data.path": str(rooms), "train.seed": seed, **overrides}
    train(resolve(config=f"{model}-two-room", overrides=settings), out)
    found, _ = plan_run(out, "wf/two-room", episodes=50, goal_offset=25, budget=50)
    assert found.success is not None
    return found.success, load_learner(out)[1]


def read_out(learner: Learner, rooms: Path) -> Tensor:
    """R^2 (2,) of a quadratic read-out of the place from the representation."""
    episodes = Episodes(rooms)
    images = np.concatenate([episodes[n]["obs.image"][::10] for n in range(200)])
    y = torch.from_numpy(np.concatenate([episodes[n]["extra.place"][::10] for n in range(200)]))
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
def test_lewm_plans_its_way(rooms: Path, seed: int, tmp_path: Path) -> None:
    success, learner = trained("lewm", rooms, tmp_path / "run", seed)
    assert float(read_out(learner, rooms).min()) >= 0.95
    assert success >= 0.75


@pytest.mark.parametrize("seed", SEEDS)
def test_lewm_does_not_without_sigreg(rooms: Path, seed: int, tmp_path: Path) -> None:
    assert trained("lewm", rooms, tmp_path / "run", seed, **{"model.sigreg": 0.0})[0] <= 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_jepa_wm_plans_its_way(rooms: Path, seed: int, tmp_path: Path) -> None:
    assert trained("jepa-wm", rooms, tmp_path / "run", seed)[0] >= 0.6

"""Token maps: what `worldflux imagine` shows of a step that is drawn token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from worldflux import create_agent
from worldflux.core.rand import Rand
from worldflux.specs import TensorSpec
from worldflux_iris.token_maps import colours, drawn_by_rows, maps
from worldflux_train.imagination_frames import stages_of
from worldflux_train.imagine import imagine

OBS = {"image": TensorSpec((3, 32, 32), "uint8", 0, 255)}
ACTION = {"action": TensorSpec((), "int64", n=3)}


def test_every_word_has_its_own_colour() -> None:
    found = (colours(torch.arange(1024)) * 255).round()
    assert len(found.unique(dim=0)) > 1000
    assert float((found[1:] - found[:-1]).abs().sum(-1).min()) > 60  # neighbours are told apart


def test_a_map_is_row_by_row() -> None:
    tokens = torch.arange(4)[None]
    found = maps(tokens)
    assert found.shape == (1, 3, 2, 2)
    assert torch.equal(found[0, :, 1, 0], colours(tokens[0, 2]))


def test_what_is_not_drawn_yet_is_white() -> None:
    before, after = torch.zeros(1, 4, dtype=torch.long), torch.arange(4)[None]
    start, half, whole = drawn_by_rows(before, after)
    assert torch.equal(start, maps(before)) and torch.equal(whole, maps(after))
    assert torch.equal(half[..., 0, :], whole[..., 0, :])
    assert bool((half[..., 1, :] == 1).all())


@pytest.mark.parametrize("family", ["iris", "delta-iris"])
def test_imagine_shows_the_tokens_of_a_step(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    agent = create_agent(f"{family}:tiny", obs_spec=OBS, action_spec=ACTION)
    model, rows = agent.world_model.eval(), 12
    flags = np.zeros(rows, bool)
    episode = {
        "obs.image": np.zeros((rows, 3, 32, 32), np.uint8), "action": np.zeros(rows, np.int64),
        "reward": np.zeros(rows, np.float32), "is_first": flags, "is_last": flags,
        "is_terminal": flags,
    }  # fmt: skip
    found = imagine(model, [episode], step=0, context=2, horizon=2, seed=0)
    assert found.stages["tokens"].shape == (3, 3, 2, 2)
    assert stages_of(found.stages["tokens"]).shape == (224, 3 * 224 + 12, 3)
    state = model.encode({"image": torch.zeros(1, 3, 32, 32, dtype=torch.uint8)})
    action = model.condition(torch.tensor([1]))
    with torch.no_grad():
        after = model.dynamics_model.transition(state, action, rand=Rand.seeded(3))
        shown = model.dynamics_model.stages(state, action, rand=Rand.seeded(3))["tokens"]
    assert torch.equal(shown[-1], maps(after["tokens"]))

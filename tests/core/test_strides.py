"""Strides of a model, of its planning agent and of its batches agree; one action space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldflux.columns import step_columns
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.strides import check_strides, in_blocks
from worldflux.errors import ContractError
from worldflux.planning import PlanningAgent
from worldflux.planning.config import PlanningAgentConfig
from worldflux.specs import TensorSpec
from worldflux.testing.dummies import TinyConfig, TinyModel
from worldflux.training import Phase, TrainingPlan

OBS, ACTION = {"state": TensorSpec((3,))}, TensorSpec((2,), low=-1.0, high=1.0)


class Blocks(TinyModel):
    """A model whose step spans three of the environment's."""

    stride = 3


class Strided(PlanningAgent):
    """Plans three actions as one."""

    stride = 3


class Forgetful(Strided):
    """Its batches hold every step."""

    def training_plan(self) -> TrainingPlan:
        plan = super().training_plan()
        return replace(plan, phases=[replace(phase, stride=1) for phase in plan.phases])


def _agent(kind: type[PlanningAgent], model: type[TinyModel]) -> PlanningAgent:
    return kind(model(TinyConfig(), OBS, {"action": ACTION}), PlanningAgentConfig())


def test_strides_that_agree_are_accepted() -> None:
    check_strides(_agent(PlanningAgent, TinyModel))
    check_strides(_agent(Strided, Blocks))


@pytest.mark.parametrize(
    ("kind", "model", "said"),
    [
        (PlanningAgent, Blocks, "Blocks.stride 3, PlanningAgent.stride 1, phase 'model' 1"),
        (Strided, TinyModel, "TinyModel.stride 1, Strided.stride 3, phase 'model' 3"),
        (Forgetful, Blocks, "Blocks.stride 3, Forgetful.stride 3, phase 'model' 1"),
    ],
)
def test_strides_that_disagree_are_all_named(
    kind: type[PlanningAgent], model: type[TinyModel], said: str
) -> None:
    with pytest.raises(ContractError, match=f"Strides disagree: {said}. One step of the model"):
        check_strides(_agent(kind, model))


def test_a_model_has_one_action_space_or_none() -> None:
    assert TinyModel(TinyConfig(), OBS, {"action": ACTION}).action == ACTION
    with pytest.raises(ContractError, match="TinyModel takes one action space, got 2: a, b"):
        TinyModel(TinyConfig(), OBS, {"a": ACTION, "b": ACTION})


def test_a_model_without_actions_says_so_where_they_are_needed() -> None:
    from worldflux.testing.clips import ClipConfig, ClipModel

    model = ClipModel(ClipConfig(), OBS)
    assert model.action is None
    with pytest.raises(ContractError, match="ClipModel needs an action space, got none"):
        model.required_action()


def test_an_episode_in_blocks_is_what_the_batches_of_the_phase_hold() -> None:
    rows = np.arange(12)
    episode = {
        "obs.state": rows[:, None].astype(np.float32), "action": rows.astype(np.float32)[:, None],
        "reward": rows.astype(np.float32), "is_first": rows == 0, "is_last": rows == 11,
        "is_terminal": rows < 0,
    }  # fmt: skip
    found = in_blocks(episode, 3)
    assert found["obs.state"][:, 0].tolist() == [0, 3, 6, 9]
    assert found["action"][:3, :, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert found["reward"].tolist() == [0, 1 + 2 + 3, 4 + 5 + 6, 7 + 8 + 9]
    assert in_blocks(episode, 1) is episode
    columns = step_columns({"state": TensorSpec((1,))}, TensorSpec((1,)))
    source = EpisodeSource([episode], columns)
    phase = Phase("p", 8, 3, updates_per_step=1, boundary="within", stride=3)
    batch = source.read(source.choose(phase, 0))
    begin = batch.obs["state"][:, 0, 0].long()
    row = int((begin == 3).nonzero()[0, 0])  # windows begin anywhere: one that begins at row 3
    assert batch.require("action")[row, :2, :, 0].tolist() == found["action"][1:3, :, 0].tolist()
    assert batch.require("reward")[row, 1:].tolist() == found["reward"][2:4].tolist()

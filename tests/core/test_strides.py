"""Strides of a model, of its planning agent and of its batches agree; one action space."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worldflux.core.strides import check_strides
from worldflux.errors import ContractError
from worldflux.planning import PlanningAgent
from worldflux.planning.config import PlanningAgentConfig
from worldflux.specs import TensorSpec
from worldflux.testing.dummies import TinyConfig, TinyModel
from worldflux.training import TrainingPlan

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

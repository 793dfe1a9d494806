"""Evaluation on data: published weights in place, nothing else moved, the loss by phase."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldflux.columns import step_columns
from worldflux.config import Config
from worldflux.core.evaluation import Evaluation
from worldflux.core.rand import Rand
from worldflux.errors import ContractError
from worldflux.specs import ModelSpec, TensorSpec
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyModel
from worldflux.testing.episodes import list_source
from worldflux.training import TrainingPlan

OBS, ACTION = {"state": TensorSpec((3,))}, {"action": TensorSpec((), "int64", n=2)}
COLUMNS = step_columns(OBS, ACTION)


class Averaged(TinyAgent):
    """Publishes weights that are twice those in training."""

    def published(self) -> dict[str, Tensor]:
        return {name: 2 * value for name, value in self.state_dict().items() if "decoder" in name}


def test_a_learner_is_judged_by_its_models_loss_without_moving_anything() -> None:
    agent, source = TinyAgent(TinyConfig(), OBS, ACTION), list_source(COLUMNS, [20, 30])
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    found = agent.evaluate(source, Rand.seeded(0, "cpu"), limit=3)
    assert isinstance(found, Evaluation) and found.score is None
    assert found.metrics.keys() == {"loss"}
    again = agent.evaluate(source, Rand.seeded(0, "cpu"), limit=3)
    assert found.metrics == again.metrics
    [phase] = agent.training_plan().phases
    losses = []
    rand = Rand.seeded(0, "cpu")
    for update in range(3):
        batch = source.read(source.choose(phase, update))
        losses.append(float(agent.world_model.loss(batch, rand=rand).loss.detach()))
    assert found.metrics["loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())


def test_too_little_data_is_no_evaluation() -> None:
    agent = TinyAgent(TinyConfig(), OBS, ACTION)
    assert agent.evaluate(list_source(COLUMNS, [4]), limit=3).metrics == {}


def test_the_loss_of_several_phases_is_that_of_each() -> None:
    class Two(TinyAgent):
        def training_plan(self) -> TrainingPlan:
            [phase] = super().training_plan().phases
            return TrainingPlan([replace(phase, name="one"), replace(phase, name="two")])

    class Scaled(TinyModel):
        def loss(self, batch, part=None, *, rand=None):
            found = super().loss(batch, rand=rand)
            return replace(found, loss=found.loss * {"one": 1, "two": 2}[part])

    agent = Two(TinyConfig(), OBS, ACTION)
    agent.world_model = Scaled(TinyConfig(), OBS, ACTION)
    found = agent.evaluate(list_source(COLUMNS, [20] * 9), limit=9).metrics
    assert found.keys() == {"loss/one", "loss/two"}
    assert found["loss/two"] == pytest.approx(2 * found["loss/one"], rel=0.2)


def test_published_weights_are_in_place_and_then_those_in_training_again() -> None:
    agent = Averaged(TinyConfig(), OBS, ACTION)
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    names = set(agent.published())
    assert names and names < set(before)
    with pytest.raises(ZeroDivisionError), agent.as_published():
        for name, value in agent.state_dict().items():
            assert torch.equal(value, 2 * before[name] if name in names else before[name])
        raise ZeroDivisionError
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())


def test_a_configuration_is_complete_by_default() -> None:
    config = TinyConfig(width=8)
    assert config.completed(COLUMNS, 500) is config


def spec(defaults: dict) -> ModelSpec:
    presets = {"small": Config(), "large": Config()}
    return ModelSpec("x", Config, presets, "small", "m:C", defaults=defaults)


def test_a_preset_has_the_defaults_of_its_paper() -> None:
    found = spec({"*": {"train.envs": 16, "train.seed": 1}, "large": {"train.envs": 1}})
    assert found.defaults_of("small") == {"train.envs": 16, "train.seed": 1}
    assert found.defaults_of("large") == {"train.envs": 1, "train.seed": 1}


@pytest.mark.parametrize("defaults", [{"*": {"model.x": 1}}, {"huge": {"train.envs": 1}}])
def test_defaults_of_other_rooms_or_presets_are_refused(defaults: dict) -> None:
    with pytest.raises(ContractError, match=r"for all: small, large\), and their keys begin with"):
        spec(defaults)

"""One optimiser step, owned by core: precision, clipping, whose gradients, what is reported."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.rand import Rand
from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux.testing.batches import random_batch
from worldflux.testing.dummies import TinyConfig, TinyModel
from worldflux.training import Phase, TrainingPlan

OBS = {"state": TensorSpec((5,))}
ACTION = {"action": TensorSpec((2,), low=-1.0, high=1.0)}


class TwoSteps(Learner):
    """A model step, then a policy step on what the new model says."""

    def __init__(self) -> None:
        super().__init__(TinyConfig(), OBS, ACTION)
        self.world_model = TinyModel(TinyConfig(), OBS, ACTION)
        self.model = nn.Linear(5, 16)
        self.policy = nn.Linear(16, 1)
        self.optimizers = {
            "model": torch.optim.SGD(self.model.parameters(), lr=0.3),
            "policy": torch.optim.SGD(self.policy.parameters(), lr=0.3),
        }

    def training_plan(self) -> TrainingPlan:
        return TrainingPlan([Phase("all", 2, 4, updates_per_step=1)])

    def predict(self, batch: Batch) -> Tensor:
        found: Tensor = self.policy(torch.tanh(self.model(batch.obs["state"])))
        return found.float()

    def model_loss(
        self, batch: Batch, rand: Rand | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        predicted = self.predict(batch)
        return (predicted - 3).square().mean(), {"predicted": predicted}

    def update(self, batch: Batch, phase: str, **random: object) -> UpdateResult:
        first = self.step("model", self.model_loss, batch)
        with torch.no_grad(), self.autocast():
            seen = self.predict(batch).mean()
        second = self.step("policy", self.model_loss, batch)
        return UpdateResult(
            {**metrics(first, "model/"), **metrics(second, "policy/"), "seen": seen}
        )


class StaleWeights(TwoSteps):
    """Broken: the whole update under one autocast, whose cache keeps the old weights."""

    def step(self, name, compute, batch, rand=None):  # type: ignore[no-untyped-def]
        loss, outputs = compute(batch, rand)
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()
        return {**outputs, "loss": loss.detach(), "grad_norm": torch.zeros(())}

    def update(self, batch: Batch, phase: str, **random: object) -> UpdateResult:
        with self.autocast():
            return super().update(batch, phase)


def batch() -> Batch:
    return random_batch(OBS, ACTION, 4, 6)


def seen(kind: type[TwoSteps], precision: str) -> float:
    torch.manual_seed(0)
    learner = kind()
    learner.precision = precision  # type: ignore[assignment]
    return float(learner.update(batch(), "all").metrics["seen"])


def off(kind: type[TwoSteps]) -> float:
    """How far, relatively, what the second half of an update sees in bf16 is from fp32."""
    with torch.random.fork_rng(devices=[]):
        exact, rough = seen(TwoSteps, "fp32"), seen(kind, "bf16")
    return abs(rough - exact) / abs(exact)


def test_bf16_uses_the_weights_of_the_step_before() -> None:
    assert off(TwoSteps) < 0.02


def test_stale_weights_under_bf16_are_noticed() -> None:
    assert off(StaleWeights) > 0.02


def test_only_the_optimizers_own_parameters_get_gradients() -> None:
    learner = TwoSteps()
    learner.step("model", learner.model_loss, batch())
    assert all(p.grad is not None for p in learner.model.parameters())
    assert all(p.grad is None for p in learner.policy.parameters())


def test_outputs_come_back_detached_with_loss_and_norm() -> None:
    learner = TwoSteps()
    found = learner.step("model", learner.model_loss, batch())
    assert not found["predicted"].requires_grad
    assert set(metrics(found)) == {"loss", "grad_norm"}
    assert float(found["grad_norm"]) > 0


def test_a_loss_output_reports_its_parts() -> None:
    learner = TwoSteps()
    learner.optimizers["world"] = torch.optim.SGD(learner.world_model.parameters(), lr=0.1)
    found = metrics(
        learner.step("world", lambda b, r: learner.world_model.loss(b, rand=r), batch())
    )
    assert {"loss", "loss/state", "loss/reward", "grad_norm"} <= set(found)


def test_clipping_limits_the_step() -> None:
    learner = TwoSteps()
    learner.clip_norm = {"model": 1e-3}
    before = copy.deepcopy(learner.model)
    found = learner.step("model", learner.model_loss, batch())
    moved = torch.cat(
        [
            (new - old).detach().flatten()
            for new, old in zip(learner.model.parameters(), before.parameters(), strict=True)
        ]
    )
    assert float(found["grad_norm"]) > 1e-2
    assert float(moved.norm()) <= 0.3 * 1e-3 * 1.01


def test_steps_are_counted_and_saved() -> None:
    learner, other = TwoSteps(), TwoSteps()
    learner.update(batch(), "all")
    learner.step("model", learner.model_loss, batch())
    other.load_training_state(learner.training_state())
    assert other.steps == {"model": 2, "policy": 1}
    with pytest.raises(StorageError, match="critic/steps"):
        other.load_training_state({"critic/steps": torch.tensor(1)})

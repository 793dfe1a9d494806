"""One optimiser step, owned by core: precision, clipping, whose gradients, what is reported."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.rand import Rand, normal
from worldflux.core.state import State
from worldflux.errors import ContractError, StorageError
from worldflux.hub import load_into
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


def gradients(learner: TwoSteps) -> list[Tensor]:
    data = batch()
    learner.step("model", learner.model_loss, data)
    learner.step("policy", learner.model_loss, data)
    return [p.grad.clone() for p in learner.policy.parameters()]  # type: ignore[union-attr]


def test_together_every_gradient_is_that_of_the_weights_before() -> None:
    torch.manual_seed(0)
    learner, data = TwoSteps(), batch()
    loss, _ = learner.model_loss(data)
    expected = torch.autograd.grad(loss, list(learner.policy.parameters()))
    one_after_another = gradients(copy.deepcopy(learner))
    before = [p.detach().clone() for p in learner.parameters()]
    with learner.together():
        found = gradients(learner)
        assert all(map(torch.equal, learner.parameters(), before))
        assert not learner.steps
    assert learner.steps == {"model": 1, "policy": 1}
    assert not torch.equal(learner.model.weight, before[-4])
    for ours, exact, other in zip(found, expected, one_after_another, strict=True):
        torch.testing.assert_close(ours, exact)
        assert not torch.allclose(other, exact)


def test_together_nothing_moves_if_it_fails() -> None:
    learner = TwoSteps()
    before = copy.deepcopy(learner.state_dict())
    with pytest.raises(KeyError), learner.together():
        learner.step("model", learner.model_loss, batch())
        learner.step("plicy", learner.model_loss, batch())
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    gradients(learner)  # steps count at once again
    assert learner.steps == {"model": 1, "policy": 1}


def test_together_refuses_shared_parameters_and_itself() -> None:
    learner = TwoSteps()
    learner.optimizers["both"] = torch.optim.SGD(learner.parameters(), lr=0.1)
    with learner.together():
        learner.step("model", learner.model_loss, batch())
        with pytest.raises(ContractError, match="'model' and 'both' step together, but share"):
            learner.step("both", learner.model_loss, batch())
        with pytest.raises(ContractError, match="together.. is already open"), learner.together():
            pass


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


class Noisy(Learner):
    """One loss with noise of the whole batch, and padding."""

    def __init__(self, closes_over: bool = False) -> None:
        super().__init__(TinyConfig(), OBS, ACTION)
        self.world_model = TinyModel(TinyConfig(), OBS, ACTION)
        self.net = nn.Linear(5, 1)
        self.optimizers = {"net": torch.optim.SGD(self.net.parameters(), lr=0.0)}
        self.closes_over = closes_over

    def training_plan(self) -> TrainingPlan:
        return TrainingPlan([Phase("all", 8, 4, updates_per_step=1)])

    def learn(self, batch: Batch) -> dict[str, object]:
        outer = Rand.seeded(3)

        def compute(b: Batch, r: Rand | None) -> tuple[Tensor, dict[str, object]]:
            r = outer if self.closes_over else (r or Rand())
            noise = r.draw("noise", (b.batch_size, b.length, 5), normal)
            found = self.net(b.obs["state"] + noise).squeeze(-1)
            assert b.mask is not None
            loss = (found.square() * b.mask).sum() / b.mask.sum()
            return loss, {"rows": found, "state": State({"x": found}), "mean": loss * 2}

        return self.step("net", compute, batch, outer)


def _padded() -> Batch:
    batch = random_batch(OBS, ACTION, 8, 4)
    batch.mask = torch.arange(4) < torch.tensor([1, 2, 3, 4, 4, 4, 2, 1])[:, None]
    return batch


def _gradients(parts: int, closes_over: bool = False) -> tuple[Tensor, dict[str, object]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner, batch = Noisy(closes_over), _padded()
        learner.accumulate = parts
        found = learner.learn(batch)
    grads = [p.grad.flatten() for p in learner.net.parameters() if p.grad is not None]
    return torch.cat(grads), found


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts: int) -> None:
    (whole, one), (cut, several) = _gradients(1), _gradients(parts)
    assert (whole - cut).abs().max() < 6e-7
    assert one.keys() == several.keys()
    for key in ("rows", "mean", "loss", "grad_norm"):
        torch.testing.assert_close(one[key], several[key])
    torch.testing.assert_close(one["state"]["x"], several["state"]["x"])  # type: ignore[index]


def test_closing_over_rand_changes_the_gradients() -> None:
    whole, cut = _gradients(1, closes_over=True)[0], _gradients(4, closes_over=True)[0]
    assert (whole - cut).abs().max() > 1e-2


def test_what_accumulation_refuses() -> None:
    learner = Noisy()
    learner.accumulate = 3
    with pytest.raises(ContractError, match="8 rows has no 3 equal parts"):
        learner.learn(_padded())
    learner.accumulate, learner.whole_batch = 2, True
    with pytest.raises(ContractError, match="Noisy needs the whole batch at once"):
        learner.learn(_padded())


def test_the_inherited_update_is_one_step_on_the_models_loss() -> None:
    learner = Noisy()
    learner.optimizers = {"model": torch.optim.SGD(learner.world_model.parameters(), lr=0.1)}
    before = copy.deepcopy(learner.world_model.state_dict())
    batch = random_batch(OBS, ACTION, 8, 4)
    result = learner.update(batch, "all", rand=Rand.seeded(0))
    assert learner.steps == {"model": 1} and "loss/reward" in result.metrics
    assert any((value != before[k]).any() for k, value in learner.world_model.state_dict().items())
    learner.optimizers["other"] = learner.optimizers["model"]
    with pytest.raises(ContractError, match="trains model, other: the inherited update"):
        learner.update(batch, "all")


def _carrying() -> TwoSteps:
    learner = TwoSteps()
    tensors = {"x": torch.arange(6.0).reshape(3, 2), "ended": torch.tensor([True, False, True])}
    learner.carry = State(tensors, {"born": [1, 2], "task": "a"})
    return learner


def test_what_is_carried_comes_back_with_its_shape_and_meta(tmp_path: Path) -> None:
    learner, other = _carrying(), TwoSteps()
    assert other.carry is None
    save_file(learner.training_state(), tmp_path / "it")
    other.load_training_state(load_file(tmp_path / "it"))
    assert learner.carry is not None and other.carry is not None
    assert other.carry.meta == learner.carry.meta
    assert other.carry.tensors.keys() == learner.carry.tensors.keys()
    for key, tensor in learner.carry.tensors.items():
        assert other.carry[key].dtype == tensor.dtype and torch.equal(other.carry[key], tensor)
    learner.carry["x"].zero_()  # a copy of its own
    assert other.carry["x"].any()


def test_a_learner_that_carried_nothing_carries_nothing_when_resumed() -> None:
    other = _carrying()
    other.load_training_state(TwoSteps().training_state())
    assert other.carry is None


def test_what_cannot_be_carried_is_refused() -> None:
    learner = _carrying()
    assert learner.carry is not None
    learner.carry.meta["net"] = learner.model
    with pytest.raises(ContractError, match="carry.meta cannot be saved"):
        learner.training_state()
    learner.optimizers["carry"] = learner.optimizers["model"]
    with pytest.raises(ContractError, match="an optimizer called 'carry'"):
        learner.training_state()


class Averaged(TwoSteps):
    """Publishes an average of the policy's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.average = copy.deepcopy(self.policy).requires_grad_(False)

    def published(self) -> dict[str, Tensor]:
        return {f"policy.{key}": value for key, value in self.average.state_dict().items()}


def test_a_saved_folder_has_the_published_weights_and_going_on_those_in_training(
    tmp_path: Path,
) -> None:
    learner, other = Averaged(), Averaged()
    for _ in range(3):
        learner.update(batch(), "all")
    load_into(other, learner.save_pretrained(tmp_path / "saved"))
    assert torch.equal(other.policy.weight, learner.average.weight)
    assert not torch.equal(other.policy.weight, learner.policy.weight)
    other.load_training_state(learner.training_state())
    for name, tensor in learner.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name

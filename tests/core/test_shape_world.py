"""The drawn shapes as a known world: small image families learn it, broken ones are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldflux import Batch, Capability, Config, LossOutput, State, WorldModel
from worldflux.core.agent import Learner
from worldflux.core.interfaces import ActionConditioner, Decoder, DynamicsModel, ObservationEncoder
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand, normal
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.specs import TensorSpec
from worldflux.testing import check_agent, check_world_model
from worldflux.testing.shape_world import SMALL_IMAGE, check_learns_shapes, without_time
from worldflux.training import Phase, TrainingPlan

SHAPE = SMALL_IMAGE["image"].shape
PIXELS, LABEL = 256, "wf.data.label"


class Encoder(ObservationEncoder):
    """Images to 24 features, and back for the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 24), nn.Tanh())

    def forward(self, obs: dict[str, Tensor]) -> State:
        return State({"features": self.net(obs["image"].float() / 255)})


class Represents(WorldModel):
    """An autoencoder's features."""

    composable_support = frozenset({"observation_encoder"})

    def __init__(self, config: Config, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.fill("observation_encoder", Encoder)
        self.back = nn.Linear(24, PIXELS)

    def state_spec(self) -> StateSpec:
        return StateSpec({"features": TensorSpec((24,))})

    def loss(self, batch: Batch, part: str | None = None, *, rand: Rand | None = None) -> Any:
        wanted = batch.obs["image"].flatten(2).float() / 255
        error = (self.back(self.observe_sequence(batch)["features"]) - wanted).square().mean()
        return LossOutput(error, {"pixels": error})


class Collapses(Represents):
    """Its only wish is that two images get the same features."""

    def loss(self, batch: Batch, part: str | None = None, *, rand: Rand | None = None) -> Any:
        found = self.observe_sequence(batch)["features"].flatten(0, 1)
        error = (found - found.flip(0)).square().mean()
        return LossOutput(error + 0 * sum(p.sum() for p in self.back.parameters()), {})


class Scale(ObservationEncoder):
    def forward(self, obs: dict[str, Tensor]) -> State:
        return State({"x": obs["image"].float() / 255})


class Labels(ActionConditioner):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, PIXELS)

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        label = None if conditions is None else conditions.extras.get(LABEL)
        return self.table(torch.full((1,), 4) if label is None else label)


class Sampler(DynamicsModel):
    """The image that a label stands for, and a little noise."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def initial(self, batch_size: int, device: torch.device) -> State:
        return State({"x": torch.zeros(batch_size, *SHAPE, device=device)})

    def transition(
        self, state: State, action: Tensor, *, deterministic: bool = False, rand: Rand | None = None
    ) -> State:
        shape = tuple(state["x"].shape)
        x = self.scale * action.expand(shape[0], -1).unflatten(1, SHAPE)
        return State(
            {"x": x if deterministic else x + 0.02 * (rand or Rand()).draw("x", shape, normal)}
        )


class ToImage(Decoder):
    def forward(self, state: State, keys: Any = None) -> dict[str, Tensor]:
        return {"image": state["x"]} if keys is None or "image" in keys else {}


class Draws(WorldModel):
    """A generator that knows the mean image of each label."""

    capabilities = frozenset(
        {Capability.UNCONDITIONAL, Capability.OBS_DECODE, Capability.STATELESS}
    )
    composable_support = frozenset({"action_conditioner", "dynamics_model"})
    starts_anew = True

    def __init__(self, config: Config, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.fill("observation_encoder", Scale)
        self.fill("action_conditioner", Labels, trial=lambda part: part(None))
        self.fill("dynamics_model", Sampler)
        self.fill("decoder_module", ToImage)

    @property
    def condition_spec(self) -> dict[str, TensorSpec]:
        return {"label": TensorSpec((), "int64", n=4)}

    def state_spec(self) -> StateSpec:
        return StateSpec({"x": TensorSpec(SHAPE)})

    def prediction_spec(self) -> PredictionSpec:
        return PredictionSpec(dict(self.obs_spec))

    def label(self, batch: Batch) -> Tensor:
        return batch.extra["label"]

    def loss(self, batch: Batch, part: str | None = None, *, rand: Rand | None = None) -> Any:
        label = self.label(batch).flatten()
        state = State({"x": batch.obs["image"].flatten(0, 1).float() / 255})
        unknown = torch.where(torch.arange(len(label)) % 8 == 0, 4, label)
        given = ConditionPayload(extras={LABEL: unknown})
        drawn = self.transition(state, None, given, deterministic=True)
        error = (
            drawn["x"] - self.encode({"image": batch.obs["image"].flatten(0, 1)})["x"]
        ).square()
        mean = error.mean()
        return LossOutput(mean, {"pixels": mean})


class WrongLabels(Draws):
    """Learns each image under the label of the next row."""

    def label(self, batch: Batch) -> Tensor:
        return batch.extra["label"].roll(1, 0)


class NoLabels(Draws):
    def label(self, batch: Batch) -> Tensor:
        return torch.full_like(batch.extra["label"], 4)


class IgnoresConditions(Draws):
    def condition(self, action: Any, conditions: Any = None) -> Tensor:
        return super().condition(action, None)


class Single(Learner):
    def __init__(self, model: type[WorldModel], rate: float = 3e-2) -> None:
        super().__init__(Config(), SMALL_IMAGE, {})
        self.world_model: WorldModel = model(Config(), SMALL_IMAGE, {})
        self.optimizers = {"model": torch.optim.Adam(self.world_model.parameters(), rate)}

    def training_plan(self) -> TrainingPlan:
        return TrainingPlan([Phase("images", 16, 1, updates_per_step=1)], collect_until=0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("model", [Represents, Draws])
def test_small_image_families_learn_it(model: type[WorldModel]) -> None:
    learner = Single(model)
    assert without_time(learner)
    assert ("extra.label" in learner.columns) == (model is Draws), "what it is conditioned on"
    check_learns_shapes(learner, 150)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Collapses, r"read-out of encode's State .*The representation collapsed"),
        (WrongLabels, r"samples are nearest to an image of another class.*Are the labels"),
        (NoLabels, r"samples are nearest to an image of another class"),
    ],
)
def test_broken_ones_are_named(model: type[WorldModel], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_learns_shapes(Single(model), 150)


def test_the_other_checks_give_labels() -> None:
    ran = check_world_model(lambda: Draws(Config(), SMALL_IMAGE))
    assert "check_conditions_matter" in ran
    check_agent(lambda: Single(Draws))
    with pytest.raises(AssertionError, match=r"wf.data.label is ignored"):
        check_world_model(lambda: IgnoresConditions(Config(), SMALL_IMAGE))

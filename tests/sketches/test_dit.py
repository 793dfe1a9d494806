"""DiT in small: images by diffusion, from labels; no time, no action, no reward."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux import Batch, Config, LossOutput, Session, State, UpdateResult, WorldModel
from worldflux.columns import Columns
from worldflux.core.agent import Learner
from worldflux.core.evaluation import Evaluation
from worldflux.core.interfaces import ActionConditioner, Decoder, DynamicsModel, ObservationEncoder
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand, bernoulli, normal, randint
from worldflux.core.source import Source
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.distributed import mean
from worldflux.nn.slow import ema_update, slow_copy
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import check_agent, check_world_model
from worldflux.training import Phase, TrainingPlan

IMAGE, D, STEPS, LABEL = (3, 4, 4), 8, 3, "wf.data.label"
OBS = {"image": TensorSpec(IMAGE, "uint8", low=0, high=255)}


class DiTConfig(Config):
    classes: int | None = None
    """Kinds of images; None: as many as the data has labels."""

    def completed(self, columns: Columns, episode_limit: int | None = None) -> Self:
        return self if self.classes else self.with_(classes=columns["extra.label"].n)


class Scale(ObservationEncoder):
    def forward(self, obs: dict[str, Tensor]) -> State:
        return State({"x": obs["image"].float() / 127.5 - 1})


class Labels(ActionConditioner):
    """The label of each row to (B, D); without one the null label, (1, D)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes + 1, D)

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        label = None if conditions is None else conditions.extras.get(LABEL)
        if label is None:
            label = torch.full((1,), self.table.num_embeddings - 1, device=self.table.weight.device)
        return self.table(label)


class Network(DynamicsModel):
    """Guesses the noise in x (B, 3, Y, X) at time t (B,); a transition is a whole sampling."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.net = nn.Linear(48 + 1 + labels, 48)

    def initial(self, batch_size: int, device: torch.device) -> State:
        return State({"x": torch.zeros(batch_size, *IMAGE, device=device)})

    def guess(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        y = label.expand(len(x), -1)
        return self.net(torch.cat([x.flatten(1), t[:, None], y], -1)).unflatten(-1, IMAGE)

    def transition(
        self, state: State, action: Tensor, *, deterministic: bool = False, rand: Rand | None = None
    ) -> State:
        shape = tuple(state["x"].shape)
        x = torch.zeros(shape, device=action.device)
        if not deterministic:
            x = (rand or Rand()).draw("noise", shape, normal, device=action.device)
        for step in reversed(range(STEPS)):
            t = torch.full(shape[:1], (step + 1) / STEPS, device=x.device)
            x = x - self.guess(x, t, action) / STEPS
        return State({"x": x}, state.meta)


class ToImage(Decoder):
    def forward(
        self, state: State, keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        return {"image": (state["x"] + 1) / 2} if keys is None or "image" in keys else {}


class Model(WorldModel):
    capabilities = frozenset(
        {Capability.UNCONDITIONAL, Capability.OBS_DECODE, Capability.STATELESS}
    )
    composable_support = frozenset({"observation_encoder", "action_conditioner", "dynamics_model"})

    starts_anew = True

    def __init__(self, config: DiTConfig, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.classes = config.classes or 1
        self.fill("observation_encoder", Scale, expects={"x": IMAGE})
        self.fill("action_conditioner", lambda: Labels(self.classes), trial=lambda part: part(None))
        self.fill("dynamics_model", lambda: Network(self.features["action"].size))
        self.fill("decoder_module", ToImage)

    @property
    def condition_spec(self) -> dict[str, TensorSpec]:
        return {"label": TensorSpec((), "int64", n=self.classes)}

    def state_spec(self) -> StateSpec:
        return StateSpec({"x": TensorSpec(IMAGE)})

    def prediction_spec(self) -> PredictionSpec:
        return PredictionSpec(dict(self.obs_spec))

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        rand, lead = rand or Rand(), (batch.batch_size, batch.length)
        x = self.observe_sequence(batch)["x"]  # (B, 1, 3, Y, X)
        t, eps = rand.draw("t", lead, randint(1000)), rand.draw("eps", tuple(x.shape), normal)
        label = batch.extra.get("label", torch.full(lead, self.classes))
        drop = rand.draw("drop", lead, bernoulli(0.1))
        label = torch.where(drop, self.classes, label).flatten()
        y = self.condition(None, ConditionPayload(extras={LABEL: label}))
        level = ((t + 1) / 1000)[..., None, None, None]
        noisy = ((1 - level).sqrt() * x + level.sqrt() * eps).flatten(0, 1)
        guess = self.dynamics_model.guess(noisy, level.flatten(), y)
        error = (guess - eps.flatten(0, 1)).square().flatten(1).mean(1).unflatten(0, lead)
        mse = mean(error, batch.mask)
        return LossOutput(mse, {"mse": mse})


class DiT(Learner):
    def __init__(self, config: DiTConfig, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.world_model: Model = Model(config, obs_spec, action_spec)
        self.averaged = slow_copy(self.world_model)
        self.optimizers = {"diffusion": torch.optim.AdamW(self.world_model.parameters(), 1e-2)}

    def training_plan(self) -> TrainingPlan:
        phase = Phase("diffusion", 16, 1, updates_per_step=1, trains=("diffusion",),
                      follows=("averaged",))  # fmt: skip
        return TrainingPlan([phase], collect_until=0)

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        result = super().update(batch, phase, rand=rand)
        ema_update(self.averaged, self.world_model, 0.1)
        return result

    def published(self) -> dict[str, Tensor]:
        return {f"world_model.{k}": v for k, v in self.averaged.state_dict().items()}

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """The share of samples whose nearest held-out image has their label."""
        batch = source.read(source.choose(self.training_plan().phases[0], 0))
        label = torch.arange(self.world_model.classes)
        start = self.world_model.initial(len(label))
        conditions = ConditionPayload(extras={LABEL: label})
        path = self.world_model.rollout(
            start, None, conditions, horizon=1, decode=True, rand=rand or Rand()
        )
        shown = path.observations["image"][-1].clamp(0, 1)  # (classes, 3, Y, X)
        real = batch.obs["image"][:, 0].float().flatten(1) / 255
        near = torch.cdist(shown.flatten(1), real).argmin(1)
        score = (batch.extra["label"][near, 0] == label).float().mean()
        grid = (shown * 255).byte().permute(2, 0, 3, 1).flatten(1, 2).numpy()
        return Evaluation(float(score), {"share": float(score)}, {"samples": grid})


def make(classes: int = 3) -> DiT:
    return DiT(DiTConfig(classes=classes), OBS)


def test_images_with_labels(train_phases: Any, source_of: Any) -> None:
    learner = make()
    assert set(learner.columns) == {
        "obs.image", "is_first", "is_last", "is_terminal", "extra.label",
    }  # fmt: skip
    config = DiTConfig().completed(learner.columns)
    assert config.classes == 3
    found = train_phases(learner, source_of(learner, (1,) * 40))
    assert "loss/mse" in found["diffusion"][0].metrics


def test_evaluation_holds_the_average(train_phases: Any, source_of: Any) -> None:
    learner = make()
    source = source_of(learner, (1,) * 40)
    train_phases(learner, source)
    own = learner.world_model.dynamics_model.net.weight
    trained = own.detach().clone()
    with learner.as_published():
        assert not torch.equal(own, trained)
        result = learner.evaluate(source, Rand.seeded(0))
    assert torch.equal(own, trained)
    assert 0 <= result.score <= 1 and result.pictures["samples"].shape == (4, 12, 3)


def test_a_session_without_actions() -> None:
    model = make().world_model
    conditions = ConditionPayload(extras={LABEL: torch.tensor([0, 1, 2])})
    session = Session(model, lambda rows, rand: model.initial(rows), rows=3, conditions=conditions)
    first, second = session.step(None), session.step(None)
    assert first.image.shape == (3, *IMAGE) and first.reward is None and first.ended is None
    assert not torch.equal(first.image, second.image)


def test_labels_matter() -> None:
    model, losses = make().world_model, []
    for label in (0, 1):
        conditions = ConditionPayload(extras={LABEL: torch.full((2,), label)})
        start = model.initial(2)
        losses.append(model.transition(start, None, conditions, deterministic=True)["x"])
    assert not F.mse_loss(*losses).eq(0)


def test_the_published_checks_pass() -> None:
    check_world_model(lambda: make().world_model)
    check_agent(make)

"""I-JEPA in small: an encoder that guesses hidden patches of its own slow copy's features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux import Batch, Config, LossOutput, State, UpdateResult, WorldModel
from worldflux.columns import Columns, step_columns
from worldflux.core.agent import Learner
from worldflux.core.evaluation import Evaluation
from worldflux.core.interfaces import ObservationEncoder
from worldflux.core.rand import Rand, uniform
from worldflux.core.schedules import Schedule
from worldflux.core.source import Source
from worldflux.core.spec import StateSpec
from worldflux.distributed import mean
from worldflux.nn.slow import ema_update, slow_copy
from worldflux.slots import built, read_slots
from worldflux.specs import TensorSpec
from worldflux.testing import check_agent, check_world_model
from worldflux.training import Phase, TrainingPlan

GRID, KEEP, BLOCKS, HIDDEN = 4, 6, 2, 3  # patches along an edge; sizes of the masks
N = GRID * GRID
OBS = {"image": TensorSpec((3, 8, 8), "uint8", low=0, high=255)}


class ViT(ObservationEncoder):
    """Patches of 2x2 pixels; with `keep` (B, K) it sees these alone. `rep` is (B, N or K, D)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patches, self.places = nn.Conv2d(3, width, 2, 2), nn.Embedding(N, width)
        self.mix = nn.TransformerEncoderLayer(width, 1, 16, dropout=0.0, batch_first=True)

    def forward(self, obs: dict[str, Tensor], keep: Tensor | None = None) -> State:
        x = self.patches(obs["image"].float() / 255).flatten(2).transpose(1, 2)
        x = x + self.places.weight
        if keep is not None:
            x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))
        return State({"rep": self.mix(x)})


class UsersViT(ViT):
    """What a caller puts into the slot: wider."""

    def __init__(self, model: WorldModel, width: int = 12) -> None:
        super().__init__(width)


class Predictor(nn.Module):
    """Features of hidden patches, from those that were kept and from where all of them are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.places, self.out = nn.Embedding(N, width), nn.Linear(width, width)

    def forward(self, z: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """z (B, K, D), keep (B, K), hidden (B, blocks, M) -> (B, blocks, M, D)."""
        query = self.places(hidden).flatten(1, 2)
        z = z + self.places(keep)
        seen = F.scaled_dot_product_attention(query, z, z)
        return self.out(seen + query).unflatten(1, hidden.shape[1:])


def masks(rand: Rand, rows: int) -> tuple[Tensor, Tensor]:
    """Patches that are kept (B, K) and hidden ones (B, blocks, M), apart from one another."""
    order = rand.draw("order", (rows, N), uniform).argsort(1)
    kept, hidden = order[:, :KEEP], order[:, KEEP : KEEP + BLOCKS * HIDDEN]
    return kept, hidden.unflatten(1, (BLOCKS, HIDDEN))


class Model(WorldModel):
    composable_support = frozenset({"observation_encoder"})

    def __init__(self, config: Config, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.fill("observation_encoder", ViT, expects={"rep": (N, None)})
        self.width = self.features["rep"].shape[-1]
        self.predictor = Predictor(self.width)
        self.target = slow_copy(self.observation_encoder)  # after fill: the caller's too

    def state_spec(self) -> StateSpec:
        return StateSpec({"rep": TensorSpec((N, self.width))})

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        obs, rows = {k: x.flatten(0, 1) for k, x in batch.obs.items()}, batch.is_first.numel()
        if "keep" in batch.extra:
            keep, hidden = batch.extra["keep"].flatten(0, 1), batch.extra["hidden"].flatten(0, 1)
        else:
            keep, hidden = masks((rand or Rand()).under("mask/"), rows)
        with torch.no_grad():
            whole = F.layer_norm(self.target(obs)["rep"], (self.width,))
        z = self.observation_encoder(obs, keep=keep)["rep"]
        guess = self.predictor(z, keep, hidden)
        wanted = whole.gather(1, hidden.flatten(1)[..., None].expand(-1, -1, self.width))
        error = F.smooth_l1_loss(guess.flatten(1, 2), wanted, reduction="none").mean((1, 2))
        loss = mean(error, None if batch.mask is None else batch.mask.flatten())
        return LossOutput(loss, {"patches": loss})


class IJEPA(Learner):
    def __init__(self, config: Config, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.world_model: Model = Model(config, obs_spec, action_spec)
        own = [p for p in self.world_model.parameters() if p.requires_grad]
        self.optimizers = {"encoder": torch.optim.AdamW(own, 1e-2)}
        self.schedules = {
            "encoder.lr": Schedule("cosine", start=0.2, peak=1.0, end=1e-3, warmup=40 / 300),
            "encoder.weight_decay": Schedule("cosine", start=0.04, end=0.4),
            "momentum": Schedule("linear", start=0.9, end=1.0),
        }

    @property
    def columns(self) -> Columns:
        return step_columns(self.obs_spec, extra={"label": TensorSpec((), "int64", n=3)})

    def training_plan(self) -> TrainingPlan:
        phase = Phase("encoder", 8, 1, updates_per_step=1, trains=("encoder",),
                      follows=("world_model.target",))  # fmt: skip
        return TrainingPlan([phase], collect_until=0)

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        rand = rand or Rand()
        keep, hidden = masks(rand.under("mask/"), batch.batch_size)
        drawn = {"keep": keep[:, None], "hidden": hidden[:, None]}  # (B, 1, ...)
        batch = replace(batch, extra={**batch.extra, **drawn})
        result = super().update(batch, phase, rand=rand)
        model = self.world_model
        ema_update(model.target, model.observation_encoder, 1 - self.scheduled("momentum"))
        return result

    def published(self) -> dict[str, Tensor]:
        prefix = "world_model.observation_encoder."
        return {prefix + k: v for k, v in self.world_model.target.state_dict().items()}

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """A linear probe of the label: fitted on even rows, scored on odd ones."""
        batch = source.read(source.choose(self.training_plan().phases[0], 0))
        x = self.world_model.observe_sequence(batch)["rep"][:, 0].mean(1)  # (B, D)
        y = F.one_hot(batch.extra["label"][:, 0], 3).float()
        ridge = x[::2].T @ x[::2] + 0.1 * torch.eye(x.shape[1])
        weights = torch.linalg.solve(ridge, x[::2].T @ y[::2])
        right = (x[1::2] @ weights).argmax(1) == y[1::2].argmax(1)
        return Evaluation(float(right.float().mean()))


def make() -> IJEPA:
    learner = IJEPA(Config(), OBS)
    learner.total["encoder"] = 100  # whoever trains knows it
    return learner


def test_images_are_sequences_of_one_step(train_phases: Any, source_of: Any) -> None:
    learner = make()
    found = train_phases(learner, source_of(learner, (1,) * 20))
    assert "loss/patches" in found["encoder"][0].metrics
    assert learner.scheduled("momentum") == pytest.approx(0.902)
    rates = learner.optimizers["encoder"].param_groups[0]
    assert rates["lr"] < 1e-2 and 0 < rates["weight_decay"] < 1e-2


def test_the_target_is_what_is_published(train_phases: Any, source_of: Any) -> None:
    learner = make()
    source = source_of(learner, (1,) * 20)
    train_phases(learner, source)
    image = {"image": torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)}
    with torch.no_grad(), learner.eval().as_published():
        rep = learner.world_model.encode(image)["rep"]
        assert 0 <= learner.evaluate(source).score <= 1
        torch.testing.assert_close(rep, learner.world_model.target(image)["rep"])
    assert rep.shape == (2, N, 8)


def test_a_callers_encoder_has_a_target_and_an_optimizer() -> None:
    slots = read_slots({"observation_encoder": UsersViT})
    learner = built(make, slots)
    model = learner.world_model
    assert model.target.patches.weight.shape[0] == model.predictor.out.in_features == 12
    own = {id(p) for group in learner.optimizers["encoder"].param_groups for p in group["params"]}
    assert {id(p) for p in model.observation_encoder.parameters()} <= own
    assert not {id(p) for p in model.target.parameters()} & own


def test_the_published_checks_pass() -> None:
    check_world_model(lambda: make().world_model)
    check_agent(make)

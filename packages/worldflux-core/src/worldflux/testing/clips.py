"""A small learner of clips: it has no actions, no rewards and does not act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux import distributed
from worldflux.columns import Columns, step_columns
from worldflux.config import Config
from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput, UpdateResult, metrics
from worldflux.core.rand import Rand, normal
from worldflux.core.source import Source
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan


class ClipConfig(Config):
    """Sizes, and what follows from the data."""

    width: PositiveInt = 16
    """Units of the hidden layer."""
    lr: PositiveFloat = 3e-3
    """Adam's learning rate."""
    classes: PositiveInt | None = None
    """Values of the label; None: as many as the data has."""

    def completed(self, columns: Columns, episode_limit: int | None = None) -> Self:
        """With the number of labels the data has."""
        label = columns.get("extra.label")
        if self.classes is not None or label is None or not isinstance(label.n, int):
            return self
        return self.with_(classes=label.n)


class ClipModel(WorldModel):
    """Predicts the next observation from this one and its label, with a little noise."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: ClipConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        size = obs_spec["state"].size
        self.classes = config.classes or 1
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.net = nn.Sequential(
            nn.Linear(size + self.classes, config.width), nn.ELU(), nn.Linear(config.width, size)
        )

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """Mean squared error of the next observation (B, T-1, D), within clips."""
        pairs = batch.transitions()
        seen = (pairs.obs["state"] - self.mean) / self.std  # (B, T-1, D)
        label = F.one_hot(batch.extra["label"][:, :-1] % self.classes, self.classes).float()
        noise = (rand or Rand()).draw("noise", tuple(seen.shape), normal).to(seen)
        found = self.net(torch.cat([seen + 0.01 * noise, label], -1))
        error = (found - (pairs.next_obs["state"] - self.mean) / self.std).square().mean(-1)
        loss = distributed.mean(error, pairs.valid)
        return LossOutput(loss, {"next": loss})


class ClipLearner(Learner):
    """Trains a `ClipModel`; normalises by the data's statistics."""

    def __init__(
        self,
        config: ClipConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.world_model = ClipModel(config, obs_spec, action_spec)
        self.optimizers = {"model": torch.optim.Adam(self.world_model.parameters(), lr=config.lr)}

    @property
    def columns(self) -> Columns:
        return step_columns(self.obs_spec, extra={"label": TensorSpec((), "int64")})

    def training_plan(self) -> TrainingPlan:
        phase = Phase(
            "model", batch=8, length=4, boundary="within", updates_per_step=1, trains=("model",)
        )
        return TrainingPlan([phase], collect_until=0)

    def begin(self, phase: str, source: Source, rand: Rand | None = None) -> None:
        found, model = source.statistics("obs.state"), self.world_model
        assert isinstance(model, ClipModel), type(model)
        model.mean.copy_(torch.from_numpy(found.mean))
        model.std.copy_(torch.from_numpy(found.std))

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        found = self.step("model", lambda b, r: self.world_model.loss(b, rand=r), batch, rand)
        return UpdateResult(metrics(found))

"""DiT's training: one phase, and an average of the weights that samples are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.evaluation import Evaluation, held_out_batches
from worldflux.core.output import UpdateResult
from worldflux.core.rand import Rand
from worldflux.core.source import Source
from worldflux.nn.slow import ema_update, slow_copy
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_diamond.dit.config import DiTConfig
from worldflux_diamond.dit.world_model import DiTWorldModel, labelled


class DiTLearner(Learner):
    """Learns from images, with labels if there are any; it does not act."""

    config: DiTConfig

    def __init__(
        self,
        config: DiTConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        c = config.agent
        self.world_model: DiTWorldModel = DiTWorldModel(config, obs_spec, action_spec)
        self.averaged = slow_copy(self.world_model)
        parameters = self.world_model.parameters()
        self.optimizers["diffusion"] = torch.optim.AdamW(
            parameters, c.lr, weight_decay=c.weight_decay
        )
        if c.clip is not None:
            self.clip_norm["diffusion"] = c.clip

    def training_plan(self) -> TrainingPlan:
        phase = Phase(
            "diffusion", self.config.agent.batch, 1, updates_per_step=1, trains=("diffusion",),
            follows=("averaged",),
        )  # fmt: skip
        return TrainingPlan([phase], collect_until=0)

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        result = super().update(batch, phase, rand=rand)
        ema_update(self.averaged, self.world_model, 1 - self.config.agent.average)
        return result

    def published(self) -> dict[str, Tensor]:
        return {f"world_model.{k}": x for k, x in self.averaged.state_dict().items()}

    @torch.no_grad()
    def samples(self, rand: Rand, each: int) -> tuple[Tensor, Tensor]:
        """Images (N, C, Y, X) in the space of the observations, `each` of every label (N,)."""
        labels = torch.arange(self.config.model.classes or 1).repeat_interleave(each)
        model = self.world_model
        start = model.initial(len(labels))
        conditions = None
        if self.config.model.classes is not None:
            conditions = labelled(labels.to(start.device))
        state = model.transition(start, None, conditions, rand=rand)
        return model.decode(state, keys=(model.key,)).predictions[model.key], labels

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """The loss on held-out images; the share of samples whose nearest of them has their label.

        That share is the score; without labels there is none. The picture has a row of samples
        for each label.
        """
        rand = rand or Rand()
        found = super().evaluate(source, rand, limit)
        images, labels = self.samples(rand.under("samples/"), self.config.agent.samples)
        pictures = {}
        if self.world_model.image_spec.image and self.world_model.image_spec.shape[0] in (1, 3):
            pictures["samples"] = grid(images, self.config.agent.samples)
        phase = self.training_plan().phases[0]
        if self.config.model.classes is None or not source.ready(replace(phase, minimum=1)):
            return replace(found, pictures=pictures)
        real, known = _held_out(source, phase, limit, self.world_model.key)
        near = torch.cdist(images.cpu().clamp(0, 1).flatten(1), real.flatten(1)).argmin(1)
        share = float((known[near] == labels).float().mean())
        scores = {**found.metrics, "samples/nearest_label": share}
        return Evaluation(share, scores, pictures)


def _held_out(source: Source, phase: Phase, limit: int, key: str) -> tuple[Tensor, Tensor]:
    """Images (N, C, Y, X) in [0, 1] and labels (N,) of at most `limit` batches."""
    batches = list(held_out_batches(source, phase, limit))
    images = torch.cat([batch.obs[key][:, 0] for batch in batches]).cpu()
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    return scaled, torch.cat([batch.extra["label"][:, 0] for batch in batches]).cpu()


def grid(images: Tensor, columns: int) -> NDArray[np.uint8]:
    """Images (N, C, Y, X) in [0, 1], N a multiple of `columns`, as one picture (Y', X', 3)."""
    shown = (images.float().cpu().clamp(0, 1) * 255).round().byte()
    shown = shown.expand(-1, 3, -1, -1) if shown.shape[1] == 1 else shown
    rows = shown.unflatten(0, (-1, columns))  # (R, columns, 3, Y, X)
    picture: NDArray[np.uint8] = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy()
    return picture

"""V-JEPA's learner: masks, schedules, the slow target; it does not act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from worldflux.columns import Columns, step_columns
from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.evaluation import Evaluation, held_out_batches
from worldflux.core.output import UpdateResult
from worldflux.core.rand import Rand
from worldflux.core.source import Source
from worldflux.nn.slow import ema_update
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_jepa.collapse import CollapseWatch, mean_numbers
from worldflux_jepa.optimisers import adamw
from worldflux_jepa.probing import rank_me
from worldflux_jepa.schedules import encoder_schedules
from worldflux_jepa.vjepa.config import VJEPAConfig
from worldflux_jepa.vjepa.masks import check_possible
from worldflux_jepa.vjepa.world_model import VJEPAModel

PHASE = "encoder"


class VJEPALearner(Learner):
    """Trains encoder and predictor on video; what is published is the slow encoder."""

    world_model: VJEPAModel

    def __init__(
        self,
        config: VJEPAConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        super().__init__(config, obs_spec, None)
        self.own = config.agent
        model = self.world_model = VJEPAModel(config, obs_spec)
        check_possible(config.model.masks, model.grid)
        decay = max(self.own.weight_decay, self.own.final_weight_decay)
        encoder = model.slot("observation_encoder")
        self.optimizers = {PHASE: adamw([encoder, model.predictor], self.own.lr, decay)}
        self.clip_norm = {PHASE: self.own.clip}
        self.schedules = encoder_schedules(PHASE, self.own)
        self.watch = CollapseWatch()

    @property
    def columns(self) -> Columns:
        """Images; no actions and no rewards."""
        return step_columns(self.obs_spec)

    def training_plan(self) -> TrainingPlan:
        model = self.world_model
        phase = Phase(
            PHASE, self.own.batch, model.own.frames, updates_per_step=1, stride=model.stride,
            boundary="within", trains=(PHASE,), follows=("world_model.target",),
        )  # fmt: skip
        return TrainingPlan([phase], collect_until=0)

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        """One step; masks are drawn for the whole batch, and the target moves once."""
        model = self.world_model
        clips = len(model.clips(batch)[0])
        drawn: dict[str, Tensor] = {}
        for kind, mask in enumerate(model.masks(clips, rand)):
            drawn |= {f"keep{kind}": mask.keep, f"hidden{kind}": mask.hidden}
        momentum = self.scheduled("momentum")
        result = super().update(replace(batch, extra={**batch.extra, **drawn}), phase, rand=rand)
        ema_update(model.target, model.slot("observation_encoder"), 1 - momentum)
        self.watch.look(self.steps[PHASE], result.metrics)
        return result

    def published(self) -> dict[str, Tensor]:
        """The slow encoder's weights, in the place of those in training."""
        weights = self.world_model.target.state_dict()
        return {f"world_model.observation_encoder.{name}": x for name, x in weights.items()}

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """The loss on held-out clips, and rank and spread of their features."""
        phase, numbers, pooled = self.training_plan().phases[0], [], []
        for batch in held_out_batches(source, phase, limit):
            with self.autocast():
                output = self.world_model.loss(batch, rand=rand)
                video = self.world_model.clips(batch)[0]
                seen = self.world_model.target({self.world_model.key: video})["rep"]
            numbers.append({"loss": output.loss, **output.components, **output.metrics})
            pooled.append(seen.float().mean(1).cpu())
        found = mean_numbers(numbers)
        return Evaluation(None, found | ({"rank_me": rank_me(torch.cat(pooled))} if pooled else {}))

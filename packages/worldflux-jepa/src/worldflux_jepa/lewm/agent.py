"""LeWorldModel's agent: it learns from data alone and acts by planning toward goals."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from worldflux.core.batch import Batch
from worldflux.core.evaluation import Evaluation
from worldflux.core.output import UpdateResult
from worldflux.core.rand import Rand
from worldflux.core.schedules import Schedule
from worldflux.core.source import Source
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_jepa.acting import EvaluatingAgent
from worldflux_jepa.action_scale import fit_to_actions
from worldflux_jepa.collapse import CollapseWatch, held_out_means
from worldflux_jepa.lewm.config import LeWMConfig
from worldflux_jepa.lewm.networks import BlockEncoder
from worldflux_jepa.lewm.world_model import LeWorldModel
from worldflux_jepa.optimisers import adamw
from worldflux_jepa.projected import batch_norms, fit_to_images

PHASE = "model"


class LeWMAgent(EvaluatingAgent):
    """Trains a `LeWorldModel`; its actions are planned block by block."""

    whole_batch = True  # SIGReg and batch norm

    def __init__(
        self,
        config: LeWMConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        seen = {key: spec for key, spec in obs_spec.items() if key != "goal"}
        super().__init__(LeWorldModel(config, seen, action_spec), config.agent, config)
        self.stride = config.model.stride
        self.own = config.agent
        self.optimizers = {
            PHASE: adamw([self.world_model], self.own.lr, self.own.weight_decay,
                         spare_vectors=False)
        }  # fmt: skip
        self.schedules = {f"{PHASE}.lr": Schedule("cosine", 0.0, 1.0, 0.0, warmup=self.own.warmup)}
        self.watch = CollapseWatch()

    def training_plan(self) -> TrainingPlan:
        phase = Phase(
            PHASE, self.own.batch, self.own.length, updates_per_step=1, stride=self.stride,
            boundary="within", trains=(PHASE,),
            follows=batch_norms(self.world_model, "world_model."),
        )  # fmt: skip
        return TrainingPlan([phase], collect_until=0)

    def begin(self, phase: str, source: Source, rand: Rand | None = None) -> None:
        """Actions are normalised by the data's statistics, in training and in planning alike."""
        blocks = self.world_model.action_conditioner
        if isinstance(blocks, BlockEncoder):
            fit_to_actions(blocks, source)
        fit_to_images(self.world_model, source, self.training_plan().phase(phase))

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        """One step on prediction and SIGReg; a collapse is reported."""
        result = super().update(batch, phase, rand=rand)
        self.watch.look(self.steps[PHASE], result.metrics)
        return result

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """The losses of held-out sequences, and how far embeddings are apart."""
        return Evaluation(metrics=held_out_means(self, source, rand, limit))

"""The agent of a JEPA world model: it learns from data alone and acts by planning toward goals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from worldflux.core.batch import Batch
from worldflux.core.evaluation import Evaluation
from worldflux.core.output import UpdateResult
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.schedules import Schedule
from worldflux.core.source import Source
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_jepa.acting import EvaluatingAgent
from worldflux_jepa.action_scale import fit_to_actions
from worldflux_jepa.collapse import CollapseWatch, held_out_means
from worldflux_jepa.jepa_wm.config import JEPAWMConfig
from worldflux_jepa.jepa_wm.networks import FlatBlocks
from worldflux_jepa.jepa_wm.world_model import JEPAWorldModel
from worldflux_jepa.optimisers import adamw
from worldflux_jepa.projected import batch_norms, fit_to_images

PHASE = "model"


class JEPAWMAgent(EvaluatingAgent):
    """Trains a `JEPAWorldModel`; its actions are planned block by block."""

    def __init__(
        self,
        config: JEPAWMConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        seen = {key: spec for key, spec in obs_spec.items() if key != "goal"}
        super().__init__(JEPAWorldModel(config, seen, action_spec), config.agent, config)
        self.stride, self.own = config.model.stride, config.agent
        self.whole_batch = config.model.sigreg > 0
        rate = self.own.lr
        self.optimizers = {PHASE: adamw([self.world_model], rate, self.own.weight_decay)}
        self.schedules = {
            f"{PHASE}.lr": Schedule("cosine", self.own.start_lr, rate, 0.0, warmup=self.own.warmup)
        }
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
        if isinstance(blocks, FlatBlocks):
            fit_to_actions(blocks, source)
        fit_to_images(self.world_model, source, self.training_plan().phase(phase))

    def conditions(self, obs: Mapping[str, Any]) -> ConditionPayload | None:
        """The encoded `obs["goal"]` (B, ...), seen with the body that is observed."""
        if "goal" not in obs:
            return None
        model = self.world_model
        assert isinstance(model, JEPAWorldModel), type(model)
        key = next((key for key, spec in self.obs_spec.items() if len(spec.shape) == 3), None)
        if key is None:  # features of a caller's encoder
            return super().conditions(obs)
        seen = {name: obs[name] for name in self.obs_spec if name != key}
        encoded = model.encode({**seen, key: obs["goal"]}, deterministic=True)
        return ConditionPayload(goal=encoded["rep"])

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        """One step; a collapse is reported."""
        result = super().update(batch, phase, rand=rand)
        self.watch.look(self.steps[PHASE], result.metrics)
        return result

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """The losses of held-out sequences, and how far tokens are apart."""
        return Evaluation(metrics=held_out_means(self, source, rand, limit))

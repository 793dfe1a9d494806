"""I-JEPA's learner: masks, schedules, the slow target; it does not act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from worldflux.columns import Columns, step_columns
from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.evaluation import Evaluation
from worldflux.core.output import UpdateResult
from worldflux.core.rand import Rand
from worldflux.core.source import Source
from worldflux.nn.slow import ema_update
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_jepa.collapse import CollapseWatch
from worldflux_jepa.ijepa.config import IJEPAConfig
from worldflux_jepa.ijepa.masks import check_possible
from worldflux_jepa.ijepa.world_model import HIDDEN, KEEP, IJEPAModel
from worldflux_jepa.optimisers import adamw
from worldflux_jepa.probing import judge, labelled_features
from worldflux_jepa.schedules import encoder_schedules

PHASE = "encoder"


class IJEPALearner(Learner):
    """Trains encoder and predictor on images; what is published is the slow encoder."""

    world_model: IJEPAModel

    def __init__(
        self,
        config: IJEPAConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        super().__init__(config, obs_spec, None)
        self.own = config.agent
        self.world_model = IJEPAModel(config, obs_spec)
        check_possible(config.model.mask, self.world_model.grid)
        encoder = self.world_model.slot("observation_encoder")
        decay = max(self.own.weight_decay, self.own.final_weight_decay)
        self.optimizers = {PHASE: adamw([encoder, self.world_model.predictor], self.own.lr, decay)}
        self.schedules = encoder_schedules(PHASE, self.own)
        self.watch = CollapseWatch()

    @property
    def columns(self) -> Columns:
        """Images, and the label where the number of classes is known."""
        classes = self.own.classes
        label = {} if classes is None else {"label": TensorSpec((), "int64", n=classes)}
        return step_columns(self.obs_spec, extra=label)

    def training_plan(self) -> TrainingPlan:
        phase = Phase(PHASE, self.own.batch, 1, updates_per_step=1, trains=(PHASE,),
                      follows=("world_model.target",))  # fmt: skip
        return TrainingPlan([phase], collect_until=0)

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        """One step; masks are drawn for the whole batch, and the target moves once."""
        model, lead = self.world_model, batch.is_first.shape
        masks = model.masks(batch.is_first.numel(), rand)
        drawn = {
            name: index.to(batch.is_first.device).unflatten(0, lead)
            for name, index in ((KEEP, masks.keep), (HIDDEN, masks.hidden))
        }
        momentum = self.scheduled("momentum")
        batch = replace(batch, extra={**batch.extra, **drawn})
        result = super().update(batch, phase, rand=rand)
        ema_update(model.target, model.slot("observation_encoder"), 1 - momentum)
        self.watch.look(self.steps[PHASE], result.metrics)
        return result

    def published(self) -> dict[str, Tensor]:
        """The slow encoder's weights, in the place of those in training."""
        weights = self.world_model.target.state_dict()
        return {f"world_model.observation_encoder.{name}": x for name, x in weights.items()}

    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """How much frozen features of at most `limit` batches tell (see `probing.judge`)."""
        found = labelled_features(self, source, limit)
        return judge(found, self.own.classes)

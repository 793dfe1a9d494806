"""Genie's learner: three phases, an optimiser for each, from video alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from worldflux.columns import Columns, step_columns
from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.evaluation import Evaluation
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.rand import Rand
from worldflux.core.schedules import Schedule
from worldflux.core.source import Source
from worldflux.nn.vector_quantizer import Quantized, perplexity
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_genie.config import GenieConfig, PhaseConfig
from worldflux_genie.evaluation import evaluated
from worldflux_genie.quantize import Quantizer
from worldflux_genie.world_model import GenieWorldModel

_CODES = {
    "tokenizer": "world_model.observation_encoder.quantizer",
    "latent_action": "world_model.action_conditioner.quantizer",
}


class GenieLearner(Learner):
    """Trains a `GenieWorldModel`; it does not act: what it learns is a world to act in.

    The phases are `tokenizer`, `latent_action` and `dynamics`, one after another, or the last two
    side by side (`agent.together`). What a phase builds on is frozen and left out of its optimiser.
    """

    config: GenieConfig
    world_model: GenieWorldModel

    def __init__(
        self,
        config: GenieConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        super().__init__(config, obs_spec, {})
        model = self.world_model = GenieWorldModel(config, obs_spec)
        c = config.agent
        parts: dict[str, tuple[PhaseConfig, tuple[torch.nn.Module, ...]]] = {
            "tokenizer": (c.tokenizer, (model.observation_encoder, model.decoder_module)),
            "latent_action": (c.latent_action, (model.action_conditioner,)),
            "dynamics": (c.dynamics, (model.dynamics_model,)),
        }
        for name, (phase, modules) in parts.items():
            own = [parameter for module in modules for parameter in module.parameters()]
            self.optimizers[name] = torch.optim.AdamW(
                own, lr=phase.lr, betas=(c.beta1, c.beta2), weight_decay=c.weight_decay
            )
            self.schedules[f"{name}.lr"] = Schedule(
                "linear", peak=phase.lr, warmup=phase.warmup, decay=phase.decay
            )
            if c.clip is not None:
                self.clip_norm[name] = c.clip

    @property
    def columns(self) -> Columns:
        """Images and flags: a video needs neither actions nor rewards."""
        return step_columns(self.obs_spec)

    def training_plan(self) -> TrainingPlan:
        c, length = self.config.agent, self.config.model.frames
        begin = c.tokenizer.steps
        after = begin if c.together else begin + c.latent_action.steps
        spans = {
            "tokenizer": (c.tokenizer, 0, begin),
            "latent_action": (c.latent_action, begin, begin + c.latent_action.steps),
            "dynamics": (c.dynamics, after, after + c.dynamics.steps),
        }
        phases = [
            Phase(
                name, phase.batch, length, updates_per_step=1, start=start, end=end,
                boundary="within", trains=(name,),
                follows=self._follows(name),
            )
            for name, (phase, start, end) in spans.items()
        ]  # fmt: skip
        return TrainingPlan(phases, collect_until=0)

    def _follows(self, name: str) -> tuple[str, ...]:
        """The counters of a phase's code-book, where it has one."""
        if name not in _CODES:
            return ()
        counters = tuple(f"{_CODES[name]}.{own}" for own in ("idle", "age"))
        return counters if counters[0] in self.state_dict(keep_vars=True) else ()

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        """One step of the phase's optimiser; then codes that were idle too long begin anew."""
        model, rand = self.world_model, rand or Rand()
        if phase == "dynamics":
            return UpdateResult(metrics(self.step(phase, model.dynamics_loss, batch, rand)))
        compute = model.tokenizer_loss if phase == "tokenizer" else model.latent_action_loss
        found = self.step(phase, compute, batch, rand)
        codes = self._quantizer(phase)
        index, inputs = found.pop("index"), found.pop("inputs")
        chosen = Quantized(inputs, index, inputs, inputs)
        revived = codes.revive(chosen, rand.under("codes/"))
        used = {"codes_used": perplexity(index, codes.codes), "codes_revived": revived.float()}
        return UpdateResult(metrics({**found, **used}))

    def _quantizer(self, phase: str) -> Quantizer:
        model = self.world_model
        part = model.observation_encoder if phase == "tokenizer" else model.action_conditioner
        return part.quantizer

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """The effect of actions on held-out video (see `evaluation.evaluated`)."""
        return evaluated(self, source, rand or Rand(), limit)

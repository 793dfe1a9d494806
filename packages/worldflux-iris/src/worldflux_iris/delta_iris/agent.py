"""Delta-IRIS's agent: tokenizer, transformer and actor learn one after another (2406.19320)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldflux.core.agent import Agent, Mode
from worldflux.core.batch import Batch
from worldflux.core.evaluation import Evaluation
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.payloads import ActionPayload
from worldflux.core.rand import Rand
from worldflux.core.source import Source
from worldflux.core.state import State
from worldflux.nn.slow import slow_copy
from worldflux.specs import TensorSpec
from worldflux.training import LeastSampled, Phase, TrainingPlan
from worldflux_iris.acting import explored
from worldflux_iris.actor import MEMORY
from worldflux_iris.delta_iris import behavior
from worldflux_iris.delta_iris.actor import DeltaActorCritic
from worldflux_iris.delta_iris.config import DeltaIRISConfig
from worldflux_iris.delta_iris.world_model import DeltaIRISWorldModel
from worldflux_iris.optimizers import decaying
from worldflux_iris.sampling import sampled
from worldflux_iris.spaces import KEY

_QUANTIZER = "world_model.dynamics_model.tokenizer.quantizer"


class DeltaIRISAgent(Agent):
    """Acts on frames as they are; a slow target network judges its dreams."""

    config: DeltaIRISConfig
    world_model: DeltaIRISWorldModel
    remembers = True  # the actor's LSTM

    def __init__(
        self,
        config: DeltaIRISConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        c = config.agent
        model = self.world_model = DeltaIRISWorldModel(config, obs_spec, action_spec)
        image, action = model.obs_spec[KEY], model.required_action()
        self.actor = DeltaActorCritic(
            c.frame, image.shape, action.size, c.lstm_dim, c.two_hot_values
        )
        self.target = slow_copy(self.actor)
        dynamics = model.dynamics_model
        tokenizer = [dynamics.tokenizer]
        apart = {id(p) for p in dynamics.tokenizer.parameters()}
        conditioner = model.slot("action_conditioner")
        self.optimizers = {
            "tokenizer": decaying(tokenizer, c.lr, c.tokenizer_decay),
            "world_model": decaying([dynamics, conditioner], c.lr, c.model_decay, without=apart),
            "actor_critic": decaying([self.actor], c.lr, 0.0),
        }
        self.clip_norm = dict.fromkeys(self.optimizers, c.clip)

    def training_plan(self) -> TrainingPlan:
        """The three phases, each from its start on; collection ends before they do."""
        c = self.config.agent

        def phase(
            name: str, batch: int, length: int, start: int, ratio: float, updates: int | None,
            **more: Any,
        ) -> Phase:  # fmt: skip
            return Phase(
                name, batch, length, ratio or None, updates, start,
                weights=LeastSampled(c.priority), trains=(name,), **more,
            )  # fmt: skip

        blocks = self.config.model.max_blocks + 1
        return TrainingPlan(
            [
                phase("tokenizer", c.tokenizer_batch, c.tokenizer_length, c.tokenizer_start,
                      c.tokenizer_ratio, c.tokenizer_updates, pad="after", follows=(_QUANTIZER,)),
                phase("world_model", c.model_batch, blocks, c.model_start, c.model_ratio,
                      c.model_updates, pad="after"),
                phase("actor_critic", c.actor_batch, 1, c.actor_start, c.actor_ratio,
                      c.actor_updates, context=c.burn_in, pad="before", follows=("target",)),
            ],
            prefill=c.prefill,
            collect_until=c.collect_until,
        )  # fmt: skip

    @torch.no_grad()
    def act(
        self,
        obs: Mapping[str, Tensor],
        state: State | None,
        is_first: Tensor,
        mode: Mode = "eval",
        *,
        rand: Rand | None = None,
    ) -> tuple[ActionPayload, State]:
        """A sample of the policy (B,); in training a share of actions is random.

        Draws: "action_noise" (B, A), and for exploring "explore" (B,) and "random" (B,).
        """
        rand, rows = rand or Rand(), len(is_first)
        frame = self.normal(self.world_model.observations(dict(obs))[KEY])
        if state is None:
            state = State(dict(zip(MEMORY, self.actor.initial(rows), strict=True)))
        before = state.map(lambda x: x.masked_fill(is_first[:, None].to(x.device), 0))
        h, memory = self.actor(frame, before[MEMORY[0]], before[MEMORY[1]])
        logits, _ = self.actor.heads(h)
        action = sampled(logits, "action", rand)
        if mode == "train":
            action = explored(action, logits.shape[-1], self.config.agent.epsilon, rand)
        after = State(dict(zip(MEMORY, (h.float(), memory.float()), strict=True)))
        return ActionPayload("discrete", tensor=action), after

    def normal(self, image: Tensor) -> Tensor:
        """Images (..., C, Y, X), of bytes or in [0, 1], as the actor sees them."""
        found: Tensor = self.world_model.dynamics_model.tokenizer.pixels(image)
        return found

    @torch.no_grad()
    def begin(self, phase: str, source: Source, rand: Rand | None = None) -> None:
        """Before the tokenizer's first update pixels are normalised by the data, where wanted."""
        if phase == "tokenizer":
            pixels = self.world_model.dynamics_model.tokenizer.pixels
            pixels.fit_to(source, self.training_plan().phase(phase), KEY)

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        """One step of the phase's optimiser, and what follows it without a gradient."""
        rand = rand or Rand()
        if phase == "tokenizer":
            return self._tokenizer(batch, rand)
        if phase == "world_model":
            model = self.world_model
            found = self.step(phase, lambda b, r: model.loss(b, phase, rand=r), batch, rand)
            return UpdateResult(metrics(found))
        before = [p.detach().clone() for p in self.actor.parameters()]
        found = self.step(phase, lambda b, r: behavior.loss(self, b, r or Rand()), batch, rand)
        # the target moves towards the weights that the loss was computed with
        torch._foreach_lerp_(list(self.target.parameters()), before, 1 - self.config.agent.tau)
        return UpdateResult(metrics(found))

    def _tokenizer(self, batch: Batch, rand: Rand) -> UpdateResult:
        """A step of the tokenizer; then its code-book moves to what chose it."""

        def compute(b: Batch, _: Rand | None) -> tuple[Tensor, dict[str, Tensor | float]]:
            out, change = self.world_model.tokenizer_loss(b)
            rows = (b.batch_size, b.length - 1)
            chosen = change.found.inputs.unflatten(0, rows), change.found.index.unflatten(0, rows)
            named = {f"loss/{name}": x for name, x in out.components.items()}
            return out.loss, {**named, **out.metrics, "inputs": chosen[0], "index": chosen[1]}

        found = self.step("tokenizer", compute, batch, rand)
        moved = self.world_model.dynamics_model.tokenizer.follow(
            found.pop("inputs"), found.pop("index"), rand
        )
        return UpdateResult(metrics(found | moved))

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """The loss of tokenizer and transformer on held-out data; dreams are judged by acting."""
        phases = self.training_plan().phases[:2]
        return Evaluation(metrics=self.held_out_losses(phases, source, rand, limit))

"""IRIS's agent: tokenizer, transformer and actor learn one after another (2209.00588)."""

from __future__ import annotations

from collections.abc import Mapping

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
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_iris import perceptual
from worldflux_iris.acting import explored
from worldflux_iris.actor import MEMORY, ActorCritic
from worldflux_iris.iris import behavior
from worldflux_iris.iris.config import IRISConfig
from worldflux_iris.iris.world_model import IRISWorldModel
from worldflux_iris.optimizers import decaying
from worldflux_iris.sampling import sampled
from worldflux_iris.spaces import KEY


class IRISAgent(Agent):
    """Sees reconstructed frames, in dreams and in the environment alike."""

    config: IRISConfig
    world_model: IRISWorldModel
    remembers = True  # the actor's LSTM

    def __init__(
        self,
        config: IRISConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        c = config.agent
        model = self.world_model = IRISWorldModel(config, obs_spec, action_spec)
        image, action = model.obs_spec[KEY], model.required_action()
        self.actor = ActorCritic(image.shape, action.size, c.conv_channels, c.lstm_dim)
        tokenizer, actor = model.parameters_of("tokenizer"), list(self.actor.parameters())
        fused = not actor[0].is_meta
        predictor = (model.slot("action_conditioner"), model.slot("dynamics_model"))
        self.optimizers = {
            "tokenizer": torch.optim.Adam(tokenizer, lr=c.tokenizer_lr, fused=fused),
            "world_model": decaying(predictor, c.model_lr, c.weight_decay),
            "actor_critic": torch.optim.Adam(actor, lr=c.actor_lr, fused=fused),
        }
        self.clip_norm = dict.fromkeys(self.optimizers, c.clip)

    def training_plan(self) -> TrainingPlan:
        """The three phases, each from its start on; collection ends before they do."""
        c, model = self.config.agent, self.config.model
        if model.perceptual:
            perceptual.require()
        ratio = c.updates_per_step or None
        encoder = "world_model.observation_encoder"

        def phase(
            name: str, batch: int, length: int, start: int, updates: int | None, **more: object
        ) -> Phase:
            return Phase(
                name, batch, length, ratio, updates, start,
                boundary="within", weights=c.sample_weights, trains=(name,),
                **more,  # type: ignore[arg-type]
            )  # fmt: skip

        return TrainingPlan(
            [
                phase("tokenizer", c.tokenizer_batch, 1, c.tokenizer_start, c.tokenizer_updates,
                      follows=(f"{encoder}.quantizing", f"{encoder}.idle")),
                phase("world_model", c.model_batch, model.max_blocks + 1, c.model_start,
                      c.model_updates, pad="after"),
                phase("actor_critic", c.actor_batch, 1, c.actor_start, c.actor_updates,
                      context=c.burn_in, pad="before"),
            ],
            prefill=c.prefill,
            collect_until=c.collect_until,
        )  # fmt: skip

    # Acting

    def initial_memory(self, rows: int) -> State:
        """The actor's memory (rows, ...) before anything was seen."""
        return State(dict(zip(MEMORY, self.actor.initial(rows), strict=True)))

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
        """A sample of the policy (B,), which sees the frame as its tokens show it.

        In training a share of actions is random. Draws: "action_noise" (B, A), and for exploring
        "explore" (B,) and "random" (B,).
        """
        c, rand, rows = self.config.agent, rand or Rand(), len(is_first)
        image = self.world_model.observations(dict(obs))[KEY]
        before = self.initial_memory(rows) if state is None else state
        before = before.map(lambda x: x.masked_fill(is_first[:, None].to(x.device), 0))
        seen = self.normal(self.world_model.reconstructed(image))
        h, memory = self.actor(seen, before[MEMORY[0]], before[MEMORY[1]])
        logits, _ = self.actor.heads(h)
        training = mode == "train"
        action = sampled(
            logits / (c.temperature if training else c.eval_temperature), "action", rand
        )
        if training:
            action = explored(action, logits.shape[-1], c.epsilon, rand)
        after = State(dict(zip(MEMORY, (h.float(), memory.float()), strict=True)))
        return ActionPayload("discrete", tensor=action), after

    def normal(self, image: Tensor) -> Tensor:
        """Images (..., C, Y, X) in [0, 1] as the actor sees them."""
        found: Tensor = self.world_model.observation_encoder.pixels(image)
        return found

    # Learning

    @torch.no_grad()
    def begin(self, phase: str, source: Source, rand: Rand | None = None) -> None:
        """Before the tokenizer's first update pixels are normalised by the data, where wanted."""
        if phase == "tokenizer":
            pixels = self.world_model.observation_encoder.pixels
            pixels.fit_to(source, self.training_plan().phase(phase), KEY)

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        """One step of the phase's optimiser; the tokenizer's code-book may move as well."""
        rand = rand or Rand()
        if phase == "actor_critic":
            found = self.step(phase, lambda b, r: behavior.loss(self, b, r or Rand()), batch, rand)
            return UpdateResult(metrics(found))
        found = self.step(phase, lambda b, r: self.world_model.loss(b, phase, rand=r), batch, rand)
        if phase == "tokenizer":
            found |= self._codebook_moves(batch, rand)
        return UpdateResult(metrics(found))

    def _codebook_moves(self, batch: Batch, rand: Rand) -> dict[str, Tensor]:
        """What moves without a gradient: the code-book's start, words that nobody chooses."""
        c, tokenizer = self.config.model, self.world_model.observation_encoder
        image = batch.obs[KEY].flatten(0, 1)
        steps = self.steps["tokenizer"]
        if c.quantize_after and steps == c.quantize_after:
            with self.autocast():
                tokenizer.start(image, rand)
        if c.revive_after is None or steps <= c.quantize_after:
            return {}
        with self.autocast():
            return {"revived": tokenizer.revive(image, rand).float()}

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """The loss of tokenizer and transformer on held-out data; dreams are judged by acting."""
        phases = self.training_plan().phases[:2]
        return Evaluation(metrics=self.held_out_losses(phases, source, rand, limit))

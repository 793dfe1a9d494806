"""DIAMOND as an agent: a world model of frames, and a policy that learns in it alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worldflux.core.agent import Agent, Mode
from worldflux.core.batch import Batch
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.payloads import ActionPayload
from worldflux.core.rand import Rand, bernoulli, randint
from worldflux.core.schedules import Schedule
from worldflux.core.source import Source
from worldflux.core.state import State
from worldflux.nn.pixels import Pixels, first_images
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_diamond.diamond import dreams
from worldflux_diamond.diamond.actor_critic import ActorCritic, sampled
from worldflux_diamond.diamond.config import DiamondConfig, OptimizerConfig
from worldflux_diamond.diamond.losses import actor_critic_losses
from worldflux_diamond.diamond.world_model import DiamondWorldModel, only_choice, pixels

_EMBEDDINGS = ("action.weight",)


class DiamondAgent(Agent):
    """Three networks, each with its phase and optimiser: denoiser, reward_end, actor_critic."""

    config: DiamondConfig
    remembers = True
    """The policy's memory has to see every frame."""

    def __init__(
        self,
        config: DiamondConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.world_model: DiamondWorldModel = DiamondWorldModel(config, obs_spec, action_spec)
        model, c = self.world_model, config.agent
        self.choices = only_choice(model.action).size
        self.actor = ActorCritic(c, model.image_spec.shape, self.choices, config.model.whiten)
        own = set(map(id, model.dynamics_model.denoiser.parameters()))
        others = [(n, p) for n, p in model.named_parameters() if id(p) not in own]
        named: dict[str, Iterable[tuple[str, nn.Parameter]]] = {
            "denoiser": model.dynamics_model.denoiser.named_parameters(),
            "reward_end": others,  # and parts of a user's own
            "actor_critic": self.actor.named_parameters(),
        }
        for name, parameters in named.items():
            settings: OptimizerConfig = getattr(c, name)
            self.optimizers[name] = _adamw(settings, parameters)
            self.clip_norm[name] = settings.clip
            self.schedules[f"{name}.lr"] = Schedule(peak=settings.lr, warmup=settings.warmup)

    def training_plan(self) -> TrainingPlan:
        c, history = self.config.agent, self.config.model.denoiser.history

        def phase(name: str, length: int, **options: Any) -> Phase:
            o: OptimizerConfig = getattr(c, name)
            wanted = {"batch": o.batch, "updates": o.burst, "updates_per_step": o.updates_per_step}
            return Phase(name, length=length, weights=c.weights, start=c.start, trains=(name,),
                         **{**wanted, **options})  # fmt: skip

        rows = 2 * c.actor_critic.batch  # as many dreams, and as many histories for new ones
        return TrainingPlan(
            [
                phase("denoiser", c.unroll, context=history, pad="before"),
                phase("reward_end", c.reward_steps, pad="both"),
                phase("actor_critic", 1, context=history - 1, pad="before", batch=rows),
            ],
            collect_until=c.collect_until,
        )

    @torch.no_grad()
    def begin(self, phase: str, source: Source, rand: Rand | None = None) -> None:
        """Before rewards and policy are learnt their pixels are normalised, where wanted."""
        readers: dict[str, Pixels] = {
            "reward_end": self.world_model.dynamics_model.reward_end.pixels,
            "actor_critic": self.actor.pixels,
        }
        if self.config.model.whiten and phase in readers:
            images = first_images(source, self.training_plan().phase(phase), self.world_model.key)
            readers[phase].fit(pixels(images.to(readers[phase].mean.device)))

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        if phase != "actor_critic":
            return super().update(batch, phase, rand=rand)
        rows: dict[str, Any] = {"pool": batch}
        if self.carry is not None:
            rows["dreams"] = self.carry
        found = self.step(phase, self._behaviour, rows, rand)
        self.carry = found["dreams"]
        return UpdateResult(metrics(found))

    def _behaviour(
        self, rows: Mapping[str, Any], rand: Rand | None
    ) -> tuple[Tensor, dict[str, Any]]:
        """The policy's loss in dreams, and how they go on."""
        steps, running = self._dreamt(rows, rand or Rand())
        loss, found = actor_critic_losses(self.config.agent, steps)
        return loss, {**found, "dreams": running.detach()}

    def _dreamt(self, rows: Mapping[str, Any], rand: Rand) -> tuple[dreams.Dreamt, State]:
        """Dreams of `rows` go on, or the first begin; ended ones begin anew in its pool."""
        c = self.config.agent
        pool = dreams.starts(self.world_model, self.actor, rows["pool"], rand.under("start/"))
        used = torch.zeros((), dtype=torch.long, device=pool.device)
        running: State | None = rows.get("dreams")
        if running is None:
            running = pool.rows(slice(max(pool.batch_size // 2, 1)))
            used = used + running.batch_size
        else:
            over = running["actor.over"] > 0
            running, used = dreams.restarted(running, pool, used, over)
        return dreams.dream(
            self.world_model, self.actor, running, pool, used,
            horizon=c.horizon, length=c.dream_length, rand=rand.under("imagined/"),
        )  # fmt: skip

    def acting_weights(self) -> dict[str, Tensor]:
        return {name: x for name, x in self.state_dict().items() if name.startswith("actor.")}

    def act(
        self,
        obs: Mapping[str, Tensor],
        state: State | None,
        is_first: Tensor,
        mode: Mode = "eval",
        *,
        rand: Rand | None = None,
    ) -> tuple[ActionPayload, State]:
        """Actions (B,) for an image (B, C, Y, X). Draws: "action", "explore" and "other" (B,)."""
        rand, rows, device = rand or Rand(), len(is_first), is_first.device
        h, c = self.actor.empty(rows, device)
        empty = State({"actor.h": h, "actor.c": c})
        kept = empty.where(is_first, state or empty)
        frame = pixels(obs[self.world_model.key])
        with torch.no_grad():
            logits, _, (h, c) = self.actor(frame, (kept["actor.h"], kept["actor.c"]))
        greedy = mode == "eval" and self.config.agent.greedy
        action = logits.argmax(-1) if greedy else sampled(logits, rand)
        if mode == "train" and self.config.agent.epsilon > 0:
            chance = bernoulli(self.config.agent.epsilon)
            explores = rand.draw("explore", (rows,), chance, device=device)
            other = rand.draw("other", (rows,), randint(self.choices), device=device)
            action = torch.where(explores, other, action)
        return ActionPayload("discrete", tensor=action), State({"actor.h": h, "actor.c": c})


def _adamw(
    settings: OptimizerConfig, parameters: Iterable[tuple[str, nn.Parameter]]
) -> torch.optim.Optimizer:
    """AdamW; what multiplies decays, biases, norms and embeddings do not."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in parameters:
        plain = parameter.ndim < 2 or name.endswith(_EMBEDDINGS)
        (kept if plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=settings.lr, eps=settings.eps
    )

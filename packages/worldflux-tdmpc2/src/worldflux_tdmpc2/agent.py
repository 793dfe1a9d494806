"""TD-MPC2's agent: acts by planning with MPPI, learns model, policy and target Q functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worldflux.core.agent import Agent, Mode
from worldflux.core.batch import Batch
from worldflux.core.interfaces import Draws
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.state import State
from worldflux.nn.slow import ema_update
from worldflux.planning.mppi import MPPI
from worldflux.planning.planner import ACTION_MASK, MEMORY, Trace
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_tdmpc2 import draws as random
from worldflux_tdmpc2 import learning, losses
from worldflux_tdmpc2.config import TDMPC2Config
from worldflux_tdmpc2.world_model import TDMPC2WorldModel


class TDMPC2Agent(Agent):
    """Plans at every step (2310.16828, section 3.2); two Adams, one of them the policy's."""

    config: TDMPC2Config
    world_model: TDMPC2WorldModel

    def __init__(
        self,
        config: TDMPC2Config,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        c = config.agent
        self.world_model = TDMPC2WorldModel(config, obs_spec, action_spec)
        action = self.world_model.action
        more = 2 if action.size >= c.wide_action else 0
        planner = c.planner.with_(iterations=c.planner.iterations + more)
        self.planner = MPPI(TensorSpec(action.shape, low=-1.0, high=1.0), planner)
        policy = list(self.world_model.policy.parameters())
        fused = not policy[0].is_meta  # one kernel for all parameters, on CPU too
        self.optimizers = {
            "model": torch.optim.Adam(self._groups(), lr=c.lr, fused=fused),
            "policy": torch.optim.Adam(policy, lr=c.lr, eps=1e-5, fused=fused),
        }
        self.clip_norm = {"model": c.clip, "policy": c.clip}

    def _groups(self) -> list[dict[str, object]]:
        """The model's Adam: the encoder learns more slowly, the policy elsewhere."""
        model, c = self.world_model, self.config.agent
        encoder: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not name.startswith("policy."):
                slow = name.startswith("observation_encoder.net.")
                (encoder if slow else rest).append(parameter)
        return [{"params": encoder, "lr": c.lr * c.enc_lr_scale}, {"params": rest}]

    def training_plan(self) -> TrainingPlan:
        """Random steps, as many updates at once, then `updates_per_step` at every step."""
        c, tasks = self.config.agent, self.config.model.tasks
        longest = max([task.episode_length for task in tasks] or [self.config.model.episode_length])
        seed = max(1000, 5 * longest) if c.seed_steps is None else c.seed_steps
        phase = Phase(
            "online",
            c.batch_size,
            c.horizon + 1,
            updates=seed or None,
            updates_per_step=c.updates_per_step,
            start=seed,
            boundary="within",
            trains=("model", "policy"),
            follows=("world_model.target_q", "world_model.scale"),
        )
        return TrainingPlan([phase], prefill=seed)

    # Acting

    remembers = False  # its State is the last plan, which only starts the next one

    @torch.no_grad()
    def act(
        self,
        obs: Mapping[str, Tensor],
        state: State | None,
        is_first: Tensor,
        mode: Mode = "eval",
        *,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
    ) -> tuple[ActionPayload, State]:
        """The first action of a plan (B, A), all environments planned at once.

        State holds the plan's mean, from which the next one starts, shifted. Draws: those of the
        planner, with "score/" and "propose/"; "shift" (B, 2) with images; "eps" (B, A) where
        `agent.plan` is off. `trace` collects what the planner did.
        """
        model, batch = self.world_model, len(is_first)
        known = random.complete(self._sources(batch), draws, is_first.device, generator)
        latent = model.encode(dict(obs), draws=known)
        if not self.config.agent.plan:
            sample = model.act_on(latent, known["eps"])
            action = sample.action if mode == "train" else sample.mean
            shaped = action.reshape(batch, *model.action.shape)
            return ActionPayload("continuous", shaped), self.planner.initial_memory(
                batch, is_first.device
            )
        mask = model.action_mask(latent)
        conditions = None if mask is None else ConditionPayload(extras={ACTION_MASK: mask})
        known.pop("shift", None)
        plan = self.planner(
            model,
            latent,
            conditions=conditions,
            previous=None if state is None else _forgotten(state, is_first),
            draws={**known, **{k: v for k, v in (draws or {}).items() if k != "shift"}},
            generator=generator,
            explore=mode == "train",
            trace=trace,
        )
        assert plan.tensor is not None
        return ActionPayload("continuous", plan.tensor[0]), plan.extras[MEMORY]

    def _sources(self, batch: int) -> dict[str, random.Source]:
        """The draws of one `act` that the planner does not make itself."""
        model, c, size = self.world_model, self.planner.config, self.world_model.action.size
        found: dict[str, random.Source] = {}
        if model.sizes.image is not None:
            found["shift"] = random.shift(batch)
        if not self.config.agent.plan:
            return {**found, "eps": random.normal(batch, size)}
        scores = model.score_sources(batch, c.candidates, c.iterations)
        found |= {f"score/{name}": source for name, source in scores.items()}
        if c.proposals:
            found["propose/eps"] = random.normal(batch, c.proposals, c.horizon, size)
        return found

    # Learning

    def update(
        self,
        batch: Batch,
        phase: str,
        *,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> UpdateResult:
        """Model and Q functions, then the policy on the same latents, then the target Qs.

        Every phase does the same; for the draws see `worldflux_tdmpc2.learning.loss_draws`.
        """
        self.training_plan().phase(phase)
        model = self.world_model
        known = learning.loss_draws(model, batch, draws, generator)
        first = self.step("model", lambda b: self._model_loss(b, known), batch)
        unrolled: learning.Unrolled = first.pop("unrolled")
        second = self.step("policy", lambda _: self._policy_loss(unrolled, known), batch)
        ema_update(model.target_q, model.q, self.config.model.tau)
        value = {"value_scale": model.scale.value.clone(), "value": second.pop("value")}
        found = {**metrics(first), **metrics(second, "policy_"), **value}
        if unrolled.termination_logit is not None:
            last = unrolled.termination_logit[:, -1].detach().sigmoid(), unrolled.terminal[:, -1]
            rate, f1 = losses.termination_scores(*last)
            found |= {"termination_rate": rate, "termination_f1": f1}
        return UpdateResult(found)

    def _model_loss(self, batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Any]]:
        unrolled = learning.unroll(self.world_model, batch, draws)
        loss, parts = learning.model_loss(self.world_model, unrolled)
        named = {f"{name}_loss": part for name, part in parts.items()}
        return loss, {**named, "unrolled": unrolled}

    def _policy_loss(
        self, unrolled: learning.Unrolled, draws: Draws
    ) -> tuple[Tensor, dict[str, Any]]:
        model = self.world_model
        proposed = learning.imagine_policy(model, unrolled, draws)
        model.scale.update(proposed.value[:, 0].detach())
        return learning.policy_loss(model, unrolled, proposed), {
            "entropy": proposed.sample.entropy.mean(),
            "scaled_entropy": proposed.sample.scaled_entropy.mean(),
            "value": proposed.value.mean(),
        }


def _forgotten(memory: State, is_first: Tensor) -> State:
    """The planner's memory (B, ...) with rows that start an episode emptied."""
    return State(
        {
            key: value.masked_fill(is_first.reshape(-1, *[1] * (value.ndim - 1)), 0)
            for key, value in memory.tensors.items()
        }
    )

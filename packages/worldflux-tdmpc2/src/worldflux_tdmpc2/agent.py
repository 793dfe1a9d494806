"""TD-MPC2's agent: acts by planning with MPPI, learns model, policy and target Q functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worldflux.core.agent import Agent, Mode
from worldflux.core.batch import Batch
from worldflux.core.conditions import ACTION_MASK
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.rand import Rand, normal
from worldflux.core.state import State
from worldflux.nn.slow import ema_update
from worldflux.planning.mppi import MPPI
from worldflux.planning.planner import MEMORY, Trace
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
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
        if not config.model.episodic:
            self.ignores_terminations = (
                "Its plans go on where the episode ends. Set model.episodic=true, which adds a "
                "head that predicts terminations."
            )

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

    @property
    def plans(self) -> bool:
        return self.config.agent.plan

    def training_plan(self) -> TrainingPlan:
        """Random steps, as many updates at once, then `updates_per_step` at every step."""
        c, longest = self.config.agent, max(self.config.model.lengths)
        seed = max(1000, 5 * longest) if c.seed_steps is None else c.seed_steps
        phase = Phase(
            "online",
            c.batch_size,
            c.horizon + 1,
            updates=seed or None,
            updates_per_step=c.updates_per_step,
            start=seed,
            boundary="within",
            weights=(1.0,),
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
        rand: Rand | None = None,
        trace: Trace | None = None,
    ) -> tuple[ActionPayload, State]:
        """The first action of a plan (B, A), all environments planned at once.

        State holds the plan's mean, from which the next one starts, shifted. Draws: those of the
        planner, with "score/" and "propose/" before the model's; "shift" (B, 2) with images; "eps"
        (B, A) where `agent.plan` is off. `trace` collects what the planner did.
        """
        model, rand = self.world_model, rand or Rand()
        latent = model.encode(dict(obs), rand=rand)
        if not self.config.agent.plan:
            return self._by_policy(latent, mode, rand)
        mask = model.action_mask(latent)
        plan = self.planner(
            model,
            latent,
            conditions=None if mask is None else ConditionPayload(extras={ACTION_MASK: mask}),
            previous=None if state is None else _emptied(state, is_first),
            rand=rand,
            explore=mode == "train",
            trace=trace,
        )
        return ActionPayload("continuous", plan.require()[0]), plan.extras[MEMORY]

    def _by_policy(self, latent: State, mode: Mode, rand: Rand) -> tuple[ActionPayload, State]:
        """The policy's own action: a sample in training, else the mean."""
        model, rows = self.world_model, latent.batch_size
        shape, device = (rows, model.action.size), latent.device
        eps = rand.draw("eps", shape, normal, device=device) if mode == "train" else None
        action = model.act_on(latent, eps).action.reshape(rows, *model.action.shape)
        return ActionPayload("continuous", action), self.planner.initial_memory(rows, device)

    # Learning

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        """Model and Q functions, then the policy on the same latents, then the target Qs.

        Every phase does the same. Draws: those of `learning.unroll` and `learning.policy_batch`,
        and "pi_heads" (2,).
        """
        self.training_plan().phase(phase)
        model, rand = self.world_model, rand or Rand()
        first = self.step("model", self._model_loss, batch, rand)
        states, weight = first.pop("states"), first.pop("weight")
        found = {**self._termination(first), **metrics(first)}
        imagined = learning.policy_batch(model, states, weight, rand)
        heads = model.drawn_heads("pi_heads", rand)
        if self.accumulate > 1:  # the scale is the whole batch's, of which the loss sees pieces
            with self.autocast():
                model.scale.update(learning.first_values(model, imagined, heads))
        second = self.step("policy", lambda part, _: self._policy_loss(part, heads), imagined, rand)
        ema_update(model.target_q, model.q, self.config.model.tau)
        value = {"value_scale": model.scale.value.clone(), "value": second.pop("value")}
        return UpdateResult({**found, **metrics(second, "policy_"), **value})

    def _model_loss(self, batch: Batch, rand: Rand | None) -> tuple[Tensor, dict[str, Any]]:
        unrolled = learning.unroll(self.world_model, batch, rand or Rand())
        loss, parts = learning.model_loss(self.world_model, unrolled)
        outputs: dict[str, Any] = {f"{name}_loss": part for name, part in parts.items()}
        outputs |= {"states": unrolled.states, "weight": unrolled.weight}
        if unrolled.termination_logit is not None:
            outputs["termination_logit"] = unrolled.termination_logit[:, -1]
            outputs["terminal"] = unrolled.terminal[:, -1]
        return loss, outputs

    def _policy_loss(self, imagined: State, heads: Tensor) -> tuple[Tensor, dict[str, Any]]:
        proposed = learning.imagine_policy(self.world_model, imagined, heads)
        if self.accumulate == 1:
            self.world_model.scale.update(proposed.value[:, 0])
        return learning.policy_loss(self.world_model, imagined, proposed), {
            "entropy": proposed.sample.entropy.mean(),
            "scaled_entropy": proposed.sample.scaled_entropy.mean(),
            "value": proposed.value.mean(),
        }

    def _termination(self, outputs: dict[str, Any]) -> dict[str, Tensor]:
        """How well the sequences' ends are predicted, out of the model step's outputs."""
        if "terminal" not in outputs:
            return {}
        probability = outputs.pop("termination_logit").sigmoid()
        rate, f1 = losses.termination_scores(probability, outputs.pop("terminal"))
        return {"termination_rate": rate, "termination_f1": f1}


def _emptied(memory: State, is_first: Tensor) -> State:
    """The planner's memory (B, ...) with rows that start an episode emptied."""
    return memory.map(torch.zeros_like).where(is_first, memory)

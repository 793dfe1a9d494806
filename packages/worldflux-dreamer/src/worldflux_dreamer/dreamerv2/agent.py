"""DreamerV2's agent: REINFORCE or dynamics gradients, a target critic copied now and then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.output import UpdateResult
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.slow import ema_update, slow_copy
from worldflux.specs import TensorSpec
from worldflux.training import TrainingPlan
from worldflux_dreamer.dreamerv2 import losses
from worldflux_dreamer.dreamerv2.config import DreamerV2Config
from worldflux_dreamer.dreamerv2.world_model import DreamerV2WorldModel
from worldflux_dreamer.latent_rssm.actors import Actor, TanhNormal
from worldflux_dreamer.latent_rssm.agent import Imagined, ImaginingAgent, measured
from worldflux_dreamer.latent_rssm.losses import lambda_targets, reach_weights


class DreamerV2Agent(ImaginingAgent):
    """The world model steps first; actor and critic then learn in the new one."""

    config: DreamerV2Config

    def __init__(
        self,
        config: DreamerV2Config,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, DreamerV2WorldModel(config, obs_spec, action_spec))
        self.slow_critic = slow_copy(self.critic)

    def make_actor(self, size_in: int) -> Actor:
        sizes, c = self.config.model, self.config.agent
        return Actor(
            size_in,
            self.spec,
            continuous="trunc_normal",
            units=sizes.units,
            layers=c.actor_layers,
            activation=sizes.activation,
            min_std=c.min_std,
        )

    def training_plan(self) -> TrainingPlan:
        """As its ancestors; with `oversample_ends` from single episodes, ends more often."""
        plan = super().training_plan()
        if not self.config.agent.oversample_ends:
            return plan
        (phase,) = plan.phases
        within = replace(phase, boundary="within", weights=(1.0,), ends="oversampled")
        return replace(plan, phases=[within])

    @property
    def mix(self) -> float:
        """Share of the dynamics gradient: 0 is pure REINFORCE, 1 pure dynamics."""
        c = self.config.agent
        auto = 0.0 if self.spec.discrete else 1.0
        return {"auto": auto, "reinforce": 0.0, "dynamics": 1.0, "both": c.mix}[c.gradient]

    @property
    def through_dynamics(self) -> bool:
        return self.mix != 0

    def update(
        self, batch: Batch, phase: str = "train", *, rand: Rand | None = None
    ) -> UpdateResult:
        """One step of each optimiser, the model's first; then perhaps the target follows."""
        model = self.model_step(batch, rand)
        found = self.behavior_steps(batch, model.pop("posterior"), rand)
        self._follow()
        return UpdateResult(measured({"model": model, **found}))

    def actor_loss(self, imagined: Imagined) -> tuple[Tensor, State, dict[str, Tensor]]:
        """Targets begin at state 0 (agent.py:ActorCritic).

        Its reward is the model's too, its discount the true one. The action at state t is judged
        by the target of state t+1.
        """
        c, gamma = self.config.agent, self.config.model.discount
        root = self.world_model.decode(imagined.start, keys=("reward",)).predictions["reward"]
        reward = torch.cat([root.detach()[:, None], imagined.reward], 1)  # (N, H+1)
        going_on = torch.cat([gamma * imagined.live[:, None], imagined.going_on], 1)
        slow = self.slow_critic(imagined.feat).squeeze(-1)
        target = lambda_targets(reward[:, :-1], going_on[:, :-1], slow, c.lam)  # (N, H)
        weight = reach_weights(torch.ones_like(imagined.live), going_on[:, :-1])  # (N, H+1)
        policy = self.actor(imagined.feat[:, :-2].detach())
        assert not isinstance(policy, TanhNormal)
        log_prob = policy.log_prob(imagined.action[:, :-1].detach())
        objective = losses.actor_objective(log_prob, target[:, 1:], slow[:, :-2], self.mix)
        entropy = policy.entropy()
        loss = losses.actor_loss(objective, entropy, weight[:, :-2], c.entropy)
        feat = imagined.feat[:, :-1].detach()
        seen = State({"feat": feat, "target": target.detach(), "weight": weight[:, :-1]})
        found = {"return": target.mean(), "reward": reward.mean(), "weight": weight.mean()}
        return loss, seen, {**found, "entropy": entropy.mean()}

    follows = ("slow_critic", "updates")

    def _follow(self) -> None:
        """Copy the critic into the target after updates 1, 1 + every, 1 + 2 every, ..."""
        c, done = self.config.agent, int(self.updates)
        if done % c.slow_every == 0:
            ema_update(self.slow_critic, self.critic, c.slow_fraction if done else 1.0)
        self.updates += 1

"""What DreamerV1 and V2 share: acting from the posterior, imagining with gradients, three Adams."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from worldflux.config import Config
from worldflux.core.agent import Agent, Mode
from worldflux.core.batch import Batch
from worldflux.core.output import metrics
from worldflux.core.payloads import ActionKind, ActionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.training import Phase, TrainingPlan
from worldflux_dreamer.latent_rssm.actors import Actor, explored, to_env
from worldflux_dreamer.latent_rssm.config import BehaviorConfig
from worldflux_dreamer.latent_rssm.layers import ScalarHead
from worldflux_dreamer.latent_rssm.losses import critic_loss
from worldflux_dreamer.latent_rssm.rssm import features
from worldflux_dreamer.latent_rssm.world_model import DiscountedWorldModel

FEATURES = ("deter", "stoch")
"""What actor and critic see of a State."""


@dataclass
class Imagined:
    """Along H imagined steps from N states: features (N, H+1, F), flat actions (N, H, A).

    Rewards and continues (N, H) belong to states 1..H, `live` (N,) is 0 where state 0 was terminal.
    """

    feat: Tensor
    action: Tensor
    reward: Tensor
    going_on: Tensor
    start: State
    live: Tensor


class ImaginingAgent(Agent):
    """Draws of `update`: the dynamics' (B, T, ...), the same by imagined step under "imagined/"
    (H, N, ...), and "imagined/action_noise" (H, N, ...). N = B * T, row b * T + t starts at (b, t).

    One Adam each for "model", "actor" and "critic". A family defines `make_actor`, `actor_loss`
    and `update`, which puts together `model_step` and `behavior_steps`.
    """

    world_model: DiscountedWorldModel
    updates: Tensor

    def __init__(self, config: Config, world_model: DiscountedWorldModel) -> None:
        super().__init__(config, world_model.obs_spec, world_model.action_spec)
        self.world_model = world_model
        self.behavior: BehaviorConfig = config.agent  # type: ignore[attr-defined]
        self.spec = world_model.required_action()
        sizes, width = world_model.sizes, self._feature_size()
        layers = self.behavior.critic_layers
        self.actor = self.make_actor(width)
        self.critic = ScalarHead(width, sizes.units, layers, sizes.activation)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        c = self.behavior
        self.clip_norm = dict.fromkeys(("model", "actor", "critic"), c.clip)
        self.optimizers = {
            "model": self._adam(world_model, c.model_lr),
            "actor": self._adam(self.actor, c.actor_lr),
            "critic": self._adam(self.critic, c.critic_lr),
        }

    follows: tuple[str, ...] = ("updates",)
    """Copies and counters that move without a gradient."""

    def make_actor(self, size_in: int) -> Actor:
        """The actor on features of this size."""
        raise NotImplementedError

    def training_plan(self) -> TrainingPlan:
        """Random steps, a burst of updates, then `updates_per_step`."""
        c = self.behavior
        phase = Phase(
            "train",
            c.batch,
            c.length,
            updates=c.pretrain or None,
            updates_per_step=c.updates_per_step,
            start=c.prefill,
            trains=tuple(self.optimizers),
            follows=self.follows,
        )
        return TrainingPlan([phase], prefill=c.prefill)

    # Acting

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
        """Train: a sample with exploration noise; eval: the actor's mode. State holds the action.

        Draws: the dynamics' and "action_noise" (B, ...); "explore" where there is exploration.
        """
        rand = rand or Rand()
        state = self._nothing(len(is_first), is_first.device) if state is None else state
        posterior = self.world_model.observe(state, state["action"], dict(obs), is_first, rand=rand)
        policy, train = self.actor(features(posterior)), mode == "train"
        action = to_env(policy.sample(rand) if train else policy.mode(rand), self.spec)
        amount = self.exploration()
        if train and amount > 0:
            action = explored(action, self.spec, amount, rand)
        kind: ActionKind = "discrete" if self.spec.discrete else "continuous"
        return ActionPayload(kind, tensor=action), posterior.with_({"action": action})

    def exploration(self) -> float:
        """How much the next action explores: it falls linearly with the updates done."""
        c = self.behavior
        if not c.explore_updates:
            return c.explore
        left = max(0.0, 1 - int(self.updates) / c.explore_updates)
        return c.explore_min + (c.explore - c.explore_min) * left

    def _nothing(self, rows: int, device: torch.device) -> State:
        dtype = torch.int64 if self.spec.discrete else torch.float32
        action = torch.zeros(rows, *self.spec.shape, dtype=dtype, device=device)
        return self.world_model.initial(rows, device).with_({"action": action})

    # Learning

    def model_step(self, batch: Batch, rand: Rand | None) -> dict[str, Any]:
        """One step of the world model; "posterior" is the State (B, T, ...) under old weights."""

        def loss(batch: Batch, rand: Rand | None) -> tuple[Tensor, dict[str, Any]]:
            model = self.world_model
            posterior = model.observe_sequence(batch, rand=rand)
            found = model.reduced(model.targets(batch), posterior)
            parts = {f"loss/{name}": term for name, term in found.items()}
            return found.loss, {**parts, "posterior": self._latent(posterior)}

        return self.step("model", loss, batch, rand)

    def behavior_steps(
        self, batch: Batch, posterior: State, rand: Rand | None
    ) -> dict[str, dict[str, Any]]:
        """One step of the actor, in dreams from posterior States (B, T, ...), one of the critic.

        The critic learns from what the actor imagined; it bootstraps by weights before its step.
        """
        # what one step hands to the next is part of its batch, so that both are cut by rows alike
        starts = replace(batch.without_context(), stored=posterior.tensors)
        actor = self.step("actor", self._actor_step, starts, rand)
        seen: State = actor.pop("imagined")
        critic = self.step("critic", self._critic_step, replace(starts, stored=seen.tensors), rand)
        return {"actor": actor, "critic": critic}

    def _actor_step(self, starts: Batch, rand: Rand | None) -> tuple[Tensor, dict[str, Any]]:
        dreams = (rand or Rand()).under("imagined/")
        with torch.set_grad_enabled(self.through_dynamics):
            imagined = self.imagine(State(starts.stored), starts.is_terminal, dreams)
        loss, seen, measured = self.actor_loss(imagined)
        return loss, {**measured, "imagined": seen.unflat(starts.is_first.shape)}

    def _critic_step(self, seen: Batch, rand: Rand | None) -> tuple[Tensor, dict[str, Any]]:
        return self.critic_loss(State(seen.stored).flat())

    @property
    def through_dynamics(self) -> bool:
        """Whether the actor learns by gradients through imagined steps."""
        return True

    @abstractmethod
    def actor_loss(self, imagined: Imagined) -> tuple[Tensor, State, dict[str, Tensor]]:
        """The actor's loss, what the critic learns from as `critic_loss` takes it, and metrics."""

    def critic_loss(self, seen: State) -> tuple[Tensor, dict[str, Tensor]]:
        """Regression of values at "feat" (N, T, F) to "target", by "weight" (N, T); metrics."""
        value = self.value(seen["feat"])
        return critic_loss(value, seen["target"], seen["weight"]), {"value": value.mean()}

    def imagine(self, posterior: State, is_terminal: Tensor, rand: Rand) -> Imagined:
        """Follow the actor from every posterior state (B, T); gradients flow along the path."""
        start = self._latent(posterior).detach().flat()

        def policy(state: State, step: int) -> Tensor:
            dist = self.actor(features(state).detach())
            action: Tensor = dist.sample(rand.at(step))
            return action if self.spec.discrete else action.unflatten(-1, self.spec.shape)

        horizon = self.behavior.horizon
        path = self.world_model.rollout(start, policy, horizon=horizon, rand=rand)
        return Imagined(
            feat=features(State.stack([state.only(FEATURES) for state in path.states])),
            action=path.actions.transpose(0, 1).flatten(2),
            reward=path.require("rewards").T,
            going_on=path.require("continues").T,
            start=start,
            live=(~is_terminal).float().flatten(),
        )

    def _latent(self, posterior: State) -> State:
        """What a State goes on from, without the statistics it was drawn from."""
        return posterior.only(self.world_model.state_spec().tensors)

    def value(self, feat: Tensor) -> Tensor:
        """The critic's values (...)."""
        values: Tensor = self.critic(feat).squeeze(-1)
        return values

    def _adam(self, module: nn.Module, lr: float) -> torch.optim.Optimizer:
        c = self.behavior
        trained = [p for p in module.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=lr, eps=c.eps, weight_decay=c.decay / lr)

    def _feature_size(self) -> int:
        start = self.world_model.state_spec().tensors
        return start["deter"].size + start["stoch"].size


def measured(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor | float]:
    """Metrics of several steps by their optimiser's name: "loss/<name>", "grad_norm/<name>"."""
    every: dict[str, Tensor | float] = {}
    for name, outputs in found.items():
        own = metrics(outputs)
        every[f"loss/{name}"], every[f"grad_norm/{name}"] = own.pop("loss"), own.pop("grad_norm")
        every |= own
    return every

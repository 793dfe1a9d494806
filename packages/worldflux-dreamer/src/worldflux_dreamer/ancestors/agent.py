"""What DreamerV1 and V2 share: acting from the posterior, imagining with gradients, three Adams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldflux.config import Config
from worldflux.core.agent import Agent, Mode
from worldflux.core.interfaces import Draws
from worldflux.core.payloads import ActionKind, ActionPayload
from worldflux.core.state import State
from worldflux.training import Phase, TrainingPlan
from worldflux_dreamer.ancestors.actors import (
    MODE_SAMPLES,
    Actor,
    TanhNormal,
    explore_noise,
    explored,
    to_env,
)
from worldflux_dreamer.ancestors.config import BehaviorConfig
from worldflux_dreamer.ancestors.layers import Head
from worldflux_dreamer.ancestors.rssm import features
from worldflux_dreamer.ancestors.world_model import DiscountedWorldModel, single_action
from worldflux_dreamer.sequences import Sequences


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
    """Draws of `update`: the dynamics' for (B, T), the same under "imagined_" for (H, N), and
    "imagined_action_noise" (H, N, ...). N = B * T, row b * T + t starts at step (b, t)."""

    world_model: DiscountedWorldModel
    updates: Tensor

    def __init__(self, config: Config, world_model: DiscountedWorldModel) -> None:
        super().__init__(config, world_model.obs_spec, world_model.action_spec)
        self.world_model = world_model
        self.behavior: BehaviorConfig = config.agent  # type: ignore[attr-defined]
        self.spec = single_action(self.action_spec)
        sizes, width = world_model.sizes, self._feature_size()
        layers = self.behavior.critic_layers
        self.actor = self.make_actor(width)
        self.critic = Head(width, 1, sizes.units, layers, sizes.activation)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        c = self.behavior
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
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[ActionPayload, State]:
        """Train: a sample with exploration noise; eval: the actor's mode. State holds the action.

        Draws: the dynamics' and "action_noise" (B, ...); "explore" where there is exploration.
        """
        rows, device = len(is_first), is_first.device
        state = self._nothing(rows, device) if state is None else state
        posterior = self.world_model.observe(
            state, state["action"], dict(obs), is_first, draws=draws, generator=generator
        )
        given, policy = draws or {}, self.actor(features(posterior))
        squashed = isinstance(policy, TanhNormal)
        lead = (MODE_SAMPLES, rows) if squashed and mode == "eval" else (rows,)
        noise = given.get("action_noise")
        if noise is None:
            noise = self.actor.noise(lead, device, generator)
        if mode == "train":
            flat = policy.sample(noise)
        else:
            flat = policy.mode(noise) if isinstance(policy, TanhNormal) else policy.mode()
        action, amount = to_env(flat, self.spec), self.exploration()
        if mode == "train" and amount > 0:
            noise = given.get("explore")
            if noise is None:
                noise = explore_noise(self.spec, rows, device, generator)
            action = explored(action, self.spec, amount, noise)
        kind: ActionKind = "discrete" if self.spec.discrete else "continuous"
        return ActionPayload(kind, tensor=action), State({**posterior.tensors, "action": action})

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
        return State({**self.world_model.initial(rows, device).tensors, "action": action})

    # Learning

    def noise(self, data: Sequences, generator: torch.Generator | None = None) -> Draws:
        """Everything random in one update, drawn beforehand."""
        (b, t), h, device = data.shape, self.behavior.horizon, data.reward.device
        dynamics = self.world_model.dynamics_model
        assert dynamics is not None
        imagined = dynamics.noise((h, b * t), device, generator)  # type: ignore[operator]
        return {
            **dynamics.noise((b, t), device, generator),  # type: ignore[operator]
            **{f"imagined_{key}": value for key, value in imagined.items()},
            "imagined_action_noise": self.actor.noise((h, b * t), device, generator),
        }

    def imagine(self, posterior: State, is_terminal: Tensor, draws: Draws) -> Imagined:
        """Follow the actor from every posterior state; gradients flow along the imagined path."""
        keys = self.world_model.state_spec().tensors
        start = State({key: posterior[key].detach().flatten(0, 1) for key in keys})

        def policy(state: State, step: int) -> Tensor:
            dist = self.actor(features(state).detach())
            action: Tensor = dist.sample(draws["imagined_action_noise"][step])
            return action if self.spec.discrete else action.unflatten(-1, self.spec.shape)

        prefix = "imagined_"
        noise = {k.removeprefix(prefix): x for k, x in draws.items() if k.startswith(prefix)}
        noise.pop("action_noise")
        horizon = self.behavior.horizon
        path = self.world_model.rollout(start, policy, horizon=horizon, draws=noise)
        assert path.rewards is not None and path.continues is not None
        seen = {key: path.to_tensor(key).transpose(0, 1) for key in ("deter", "stoch")}
        return Imagined(
            feat=features(State(seen)),
            action=path.actions.transpose(0, 1).flatten(2),
            reward=path.rewards.T,
            going_on=path.continues.T,
            start=start,
            live=(~is_terminal).float().flatten(),
        )

    def value(self, feat: Tensor) -> Tensor:
        """The critic's values (...)."""
        values: Tensor = self.critic(feat).squeeze(-1)
        return values

    def differentiate(self, name: str, loss: Tensor) -> Tensor:
        """Put the gradients of `loss` on what the optimiser `name` trains, and nowhere else.

        Returns their norm before it was clipped.
        """
        params = [p for p in _params(self.optimizers[name]) if p.requires_grad]
        grads = torch.autograd.grad(loss, params, allow_unused=True)
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        return torch.nn.utils.clip_grad_norm_(params, self.behavior.clip)

    def _adam(self, module: nn.Module, lr: float) -> torch.optim.Optimizer:
        c = self.behavior
        trained = [p for p in module.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=lr, eps=c.eps, weight_decay=c.decay / lr)

    def _feature_size(self) -> int:
        start = self.world_model.state_spec().tensors
        return start["deter"].size + start["stoch"].size


def _params(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    groups: Iterable[dict[str, list[nn.Parameter]]] = optimizer.param_groups
    return [param for group in groups for param in group["params"]]

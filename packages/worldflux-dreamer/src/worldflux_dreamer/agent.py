"""DreamerV3's agent: acts from the posterior, learns the model and behaviour in one update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from worldflux.core.agent import Agent, Mode
from worldflux.core.batch import Batch
from worldflux.core.interfaces import Draws, Policy
from worldflux.core.output import UpdateResult
from worldflux.core.payloads import ActionKind, ActionPayload
from worldflux.core.state import State
from worldflux.nn.slow import ema_update, slow_copy
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_dreamer.behavior import Critics, Imagined, imagination_losses, replay_loss
from worldflux_dreamer.config import DreamerV3Config
from worldflux_dreamer.graphs import CapturedLoss
from worldflux_dreamer.networks import ScalarHead, features
from worldflux_dreamer.optim import LaProp
from worldflux_dreamer.policy import ActorHead
from worldflux_dreamer.returns import ReturnNorm
from worldflux_dreamer.sequences import Sequences
from worldflux_dreamer.world_model import DreamerV3WorldModel, masked_mean, only_action


@dataclass
class Losses:
    """What one loss computation gives: terms (B, T'), latents, imagined outputs, metrics."""

    total: Tensor
    terms: dict[str, Tensor]
    posterior: State
    outputs: dict[str, Tensor]
    metrics: dict[str, Tensor]


class DreamerV3Agent(Agent):
    """Draws of `update`: "stoch" (B, T, S), "imagined_stoch" (H, N, S) and
    "imagined_action_noise" (H+1, N, ...).

    N = B * T, row b * T + t starts at posterior state (b, t); with `imag_last`, T counts those
    steps. "imagined_action" (H+1, N, ...) forces the actions instead. Integer "stoch" draws are
    the classes themselves.
    """

    config: DreamerV3Config
    world_model: DreamerV3WorldModel

    def __init__(
        self,
        config: DreamerV3Config,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.world_model = DreamerV3WorldModel(config, obs_spec, action_spec)
        model, agent = config.model, config.agent
        size = model.deter + model.stoch * model.classes
        self.policy = ActorHead(size, only_action(action_spec), model, agent)
        self.value = ScalarHead(size, agent.value_layers, model)
        self.slow_value = slow_copy(self.value)
        self.return_norm = ReturnNorm(agent)
        self.optimizers = {"laprop": self._optimizer()}

    def _optimizer(self) -> LaProp:
        c = self.config.agent
        return LaProp(
            (p for p in self.parameters() if p.requires_grad),
            lr=c.lr,
            warmup=c.warmup,
            betas=(c.beta1, c.beta2),
            eps=c.eps,
            agc=c.agc,
            pmin=c.pmin,
        )

    def training_plan(self) -> TrainingPlan:
        """One phase: `train_ratio` replayed steps per agent step."""
        c = self.config.agent
        phase = Phase(
            name="train",
            batch=c.batch,
            length=c.length,
            updates_per_step=c.train_ratio / (c.batch * c.length),
            boundary="cross",
            context=c.context,
            start=c.prefill,
            minimum=c.batch * c.length,
            trains=("laprop",),
            follows=("slow_value", "return_norm"),
        )
        return TrainingPlan(phases=(phase,), prefill=c.prefill)

    # Acting

    @property
    def replay_spec(self) -> Mapping[str, TensorSpec]:
        """Latents of every step: the deterministic part, and the classes of the stochastic one."""
        c = self.config.model
        return {
            "deter": TensorSpec((c.deter,)),
            "stoch": TensorSpec((c.stoch,), "uint8" if c.classes <= 256 else "int16"),
        }

    def replay_values(self, state: State) -> dict[str, Tensor]:
        """The `replay_spec` columns (B, ...) of a State."""
        stoch = state["stoch"].argmax(-1)
        small = torch.uint8 if self.config.model.classes <= 256 else torch.int16
        return {"deter": state["deter"].detach().float().clone(), "stoch": stoch.to(small)}

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
        """Sampled actions from the posterior; State also holds the action, to condition on next.

        With `agent.eval_policy` "mode", mode "eval" takes the most likely action instead. Draws:
        "stoch" (B, S), "action_noise" as `policy.noise` gives it.
        """
        state = self._initial(len(is_first), is_first.device) if state is None else state
        posterior = self.world_model.observe(
            state, state["action"], dict(obs), is_first, draws=draws, generator=generator
        )
        dist = self.policy(features(posterior))
        if mode == "eval" and self.config.agent.eval_policy == "mode":
            action = dist.mode()
        else:
            noise = (draws or {}).get("action_noise")
            if noise is None:
                noise = self.policy.noise((len(is_first),), is_first.device, generator)
            action = dist.sample(noise)
        kind: ActionKind = "discrete" if self.policy.spec.discrete else "continuous"
        action = action if kind == "discrete" else action.clamp(-1, 1)
        kept = {"deter": posterior["deter"], "stoch": posterior["stoch"], "action": action}
        return ActionPayload(kind=kind, tensor=action), State(kept)

    def _initial(self, batch_size: int, device: torch.device) -> State:
        state = self.world_model.initial(batch_size, device)
        spec = self.policy.spec
        dtype = torch.int64 if spec.discrete else torch.float32
        nothing = torch.zeros(batch_size, *spec.shape, dtype=dtype, device=device)
        return State({**state.tensors, "action": nothing})

    # Learning

    def update(
        self,
        batch: Batch,
        phase: str = "train",
        *,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> UpdateResult:
        """One backward pass of all terms, one optimiser step, then the slow critic follows."""
        data = self.world_model.sequences(batch)
        optimizer = self.optimizers["laprop"]
        assert isinstance(optimizer, LaProp)
        losses = self._differentiated(data, draws or self.noise(data, generator))
        optimizer.step()
        ema_update(self.slow_value, self.value, self.config.agent.slow_rate)
        metrics = {"loss": losses.total.detach().clone(), "grad_norm": optimizer.grad_norm}
        metrics |= {f"loss/{key}": term.detach().mean() for key, term in losses.terms.items()}
        return UpdateResult(
            metrics={**metrics, **{key: x.clone() for key, x in losses.metrics.items()}},
            replay_writes=self.replay_values(losses.posterior),
        )

    def _differentiated(self, data: Sequences, draws: Draws) -> Losses:
        """Losses, with their gradients in the parameters."""
        if self.config.agent.cuda_graph:
            return self._captured(data, draws)
        for parameter in self.parameters():
            parameter.grad = None
        with self.autocast():
            losses = self.losses(data, draws)
        losses.total.backward()  # type: ignore[no-untyped-call]
        return losses

    @cached_property
    def _captured(self) -> CapturedLoss:
        trained = [p for p in self.parameters() if p.requires_grad]
        return CapturedLoss(self.losses, trained, self.return_norm.buffers())

    def noise(self, data: Sequences, generator: torch.Generator | None = None) -> Draws:
        """Everything random in one update, drawn beforehand."""
        (b, k), device = self.starts(data).shape, data.reward.device
        h = self.config.agent.imag_length
        dynamics: Any = self.world_model.dynamics_model
        observed = dynamics.noise(data.shape, device, generator)
        imagined = dynamics.noise((h, b * k), device, generator)
        return {
            **observed,
            **{f"imagined_{key}": value for key, value in imagined.items()},
            "imagined_action_noise": self.policy.noise((h + 1, b * k), device, generator),
        }

    def losses(self, data: Sequences, draws: Draws) -> Losses:
        """All terms (B, T') and their weighted sum; deterministic given `draws`."""
        model, observed, dreamed = self.world_model, *_split(draws)
        posterior = model.observe_sequence(data, observed, None)
        terms = model.loss_terms(data, posterior)
        imagined, feat, outputs = self.imagine(posterior, dreamed)
        critics = self._critics(feat)
        acting, ret, metrics = imagination_losses(
            imagined, self.policy(feat), critics, self.return_norm, self.config
        )
        end = self.starts(data)
        boot = ret[:, 0].view(end.shape)
        behavior = {name: term.mean(1).view(end.shape) for name, term in acting.items()}
        replayed = self._critics(features(posterior)[:, -boot.shape[1] :])
        behavior["repval"], replay_ret = replay_loss(
            end.is_last, end.is_terminal, end.reward, boot, replayed, self.config
        )
        means = {name: masked_mean(term, data.mask) for name, term in terms.items()}
        means |= {name: masked_mean(term, end.mask) for name, term in behavior.items()}
        scales, terms = self.loss_scales(), terms | behavior
        assert scales.keys() == means.keys(), (sorted(scales), sorted(means))
        total = torch.stack([scales[name] * mean for name, mean in means.items()]).sum()
        outputs |= {"value": critics.value, "slow_value": critics.slow, "return": ret}
        outputs |= {"replay_return": replay_ret}
        return Losses(total, terms, posterior, outputs, metrics)

    def starts(self, data: Sequences) -> Sequences:
        """The steps of each sequence that imagination starts from."""
        last = self.config.agent.imag_last
        return data.last(last) if last else data

    def loss_scales(self) -> dict[str, float]:
        """Weight of every loss term by its name."""
        c = self.config.agent
        own = {"policy": c.scale_policy, "value": c.scale_value, "repval": c.scale_repval}
        return self.world_model.loss_scales() | own

    @torch.no_grad()
    def imagine(self, posterior: State, draws: Draws) -> tuple[Imagined, Tensor, dict[str, Tensor]]:
        """H+1 states from each starting state: predictions (N, H+1), features (N, H+1, F).

        No gradient flows through imagined states: the actor learns by REINFORCE.
        """
        count = self.config.agent.imag_last
        start = State(
            {key: posterior[key].detach()[:, -count:].flatten(0, 1) for key in ("deter", "stoch")}
        )
        horizon = self.config.agent.imag_length
        policy, noise = self.actor(draws)
        path = self.world_model.rollout(start, policy, horizon=horizon, draws=noise)
        assert path.rewards is not None and path.continues is not None
        last = policy(path.states[-1], horizon)
        root = self.world_model.decode(start, keys=("reward", "continue")).predictions
        states = State({key: path.to_tensor(key).transpose(0, 1) for key in start.tensors})
        imagined = Imagined(
            action=torch.cat([path.actions, last[None]]).transpose(0, 1),
            reward=torch.cat([root["reward"][None], path.rewards]).T,
            going_on=torch.cat([root["continue"][None], path.continues]).T,
        )
        outputs = {"reward": imagined.reward, "going_on": imagined.going_on}
        return imagined, features(states), {**outputs, "deter": states["deter"]}

    def actor(self, draws: Draws) -> tuple[Policy, Draws]:
        """The actor as a rollout's policy, and the draws (H, N, ...) that are not its own."""

        def policy(state: State, step: int) -> Tensor:
            if "action" in draws:
                return draws["action"][step]
            action: Tensor = self.policy(features(state)).sample(draws["action_noise"][step])
            return action

        own = ("action", "action_noise")
        return policy, {key: value for key, value in draws.items() if key not in own}

    def _critics(self, feat: Tensor) -> Critics:
        logits = self.value(feat)
        with torch.no_grad():
            slow = self.slow_value.mean(self.slow_value(feat.detach()))
        return Critics(logits, self.value.mean(logits.detach()), slow, self.value.bins)


def _split(draws: Draws) -> tuple[Draws, Draws]:
    """Draws for the observed sequence, and those for imagination (their prefix removed)."""
    prefix = "imagined_"
    dreamed = {key.removeprefix(prefix): x for key, x in draws.items() if key.startswith(prefix)}
    return {key: x for key, x in draws.items() if not key.startswith(prefix)}, dreamed

"""DreamerV3's agent: acts from the posterior, learns the model and behaviour in one update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worldflux.core.agent import Agent, Mode
from worldflux.core.batch import Batch
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.payloads import ActionKind, ActionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.slow import ema_update, slow_copy
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan
from worldflux_dreamer.dreamerv3.behavior import Critics, Imagined, imagination_losses, replay_loss
from worldflux_dreamer.dreamerv3.config import DreamerV3Config
from worldflux_dreamer.dreamerv3.networks import ScalarHead, features
from worldflux_dreamer.dreamerv3.optim import LaProp
from worldflux_dreamer.dreamerv3.policy import ActorHead
from worldflux_dreamer.dreamerv3.returns import ReturnNorm
from worldflux_dreamer.dreamerv3.world_model import DreamerV3WorldModel
from worldflux_dreamer.shared_losses import masked_mean

LATENT = ("deter", "stoch")
"""What a State must hold to go on from."""


@dataclass
class Losses:
    """What one loss computation gives: terms (B, T'), latents, imagined outputs, metrics."""

    total: Tensor
    terms: dict[str, Tensor]
    posterior: State
    outputs: dict[str, Tensor]
    metrics: dict[str, Tensor]


class DreamerV3Agent(Agent):
    """Draws of `update`: "stoch" (B, T, S), and by imagined step "imagined/stoch" (H, N, S) and
    "imagined/action_noise" (H+1, N, ...).

    N = B * T, row b * T + t starts at posterior state (b, t); with `imag_last`, T counts those
    steps. "imagined/action" (H+1, N, ...) forces the actions instead. Integer "stoch" draws are
    the classes themselves.
    """

    config: DreamerV3Config
    world_model: DreamerV3WorldModel
    whole_batch = True  # percentiles of the imagined returns

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
        self.policy = ActorHead(size, self.world_model.required_action(), model, agent)
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
        """Latents of every step: the deterministic part, and the classes of the stochastic one.

        The former as precisely as they are computed: `train.precision=bf16` keeps half the bytes.
        """
        c = self.config.model
        return {
            "deter": TensorSpec((c.deter,), "bfloat16" if self.precision == "bf16" else "float32"),
            "stoch": TensorSpec((c.stoch,), "uint8" if c.classes <= 256 else "int16"),
        }

    def replay_values(self, state: State) -> dict[str, Tensor]:
        """The `replay_spec` columns (B, ...) of a State."""
        stoch = state["stoch"].argmax(-1)
        small = torch.uint8 if self.config.model.classes <= 256 else torch.int16
        exact = torch.bfloat16 if self.precision == "bf16" else torch.float32
        deter = state["deter"].detach().to(exact, copy=True)
        return {"deter": deter, "stoch": stoch.to(small)}

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
        """Sampled actions from the posterior; State also holds the action, to condition on next.

        With `agent.eval_policy` "mode", mode "eval" takes the most likely action instead. Draws:
        "stoch" (B, S), "action_noise" (B, ...).
        """
        rand = rand or Rand()
        state = self._initial(len(is_first), is_first.device) if state is None else state
        posterior = self.world_model.observe(state, state["action"], dict(obs), is_first, rand=rand)
        dist = self.policy(features(posterior))
        likeliest = mode == "eval" and self.config.agent.eval_policy == "mode"
        action = dist.mode() if likeliest else dist.sample(rand)
        kind: ActionKind = "discrete" if self.policy.spec.discrete else "continuous"
        action = action if kind == "discrete" else action.clamp(-1, 1)
        return ActionPayload(kind=kind, tensor=action), posterior.only(LATENT).with_(
            {"action": action}
        )

    def _initial(self, batch_size: int, device: torch.device) -> State:
        state = self.world_model.initial(batch_size, device)
        spec = self.policy.spec
        dtype = torch.int64 if spec.discrete else torch.float32
        nothing = torch.zeros(batch_size, *spec.shape, dtype=dtype, device=device)
        return state.with_({"action": nothing})

    # Learning

    def update(
        self, batch: Batch, phase: str = "train", *, rand: Rand | None = None
    ) -> UpdateResult:
        """One optimiser step on all terms, then the slow critic follows."""
        found = self.step("laprop", self._computed, batch, rand)
        ema_update(self.slow_value, self.value, self.config.agent.slow_rate)
        return UpdateResult(metrics(found), self.replay_values(found["posterior"]))

    def clip(self, name: str, params: Iterable[Tensor]) -> Tensor:
        """The norm of all gradients; the optimiser itself limits each tensor's (LaProp)."""
        return torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])

    def _computed(self, batch: Batch, rand: Rand | None) -> tuple[Tensor, dict[str, Any]]:
        found = self.losses(batch, rand or Rand())
        means = {f"loss/{key}": term.mean() for key, term in found.terms.items()}
        return found.total, {**means, **found.metrics, "posterior": found.posterior.only(LATENT)}

    def losses(self, batch: Batch, rand: Rand) -> Losses:
        """All terms (B, T') and their weighted sum."""
        model = self.world_model
        data, posterior = model.targets(batch), model.observe_sequence(batch, rand=rand)
        terms = model.loss_terms(data, posterior)
        imagined, feat, outputs = self.imagine(posterior, rand.under("imagined/"))
        critics = self._critics(feat)
        acting, ret, measured = imagination_losses(
            imagined, self.policy(feat), critics, self.return_norm, self.config
        )
        end = self.starts(data)
        boot = ret[:, 0].view(end.is_first.shape)
        behavior = {name: term.mean(1).view(end.is_first.shape) for name, term in acting.items()}
        replayed = self._critics(features(posterior)[:, -boot.shape[1] :])
        behavior["repval"], replay_ret = replay_loss(
            end.is_last, end.is_terminal, end.require("reward"), boot, replayed, self.config
        )
        means = {name: masked_mean(term, data.mask) for name, term in terms.items()}
        means |= {name: masked_mean(term, end.mask) for name, term in behavior.items()}
        scales, terms = self.loss_scales(), terms | behavior
        assert scales.keys() == means.keys(), (sorted(scales), sorted(means))
        total = torch.stack([scales[name] * mean for name, mean in means.items()]).sum()
        outputs |= {"value": critics.value, "slow_value": critics.slow, "return": ret}
        outputs |= {"replay_return": replay_ret}
        return Losses(total, terms, posterior, outputs, measured)

    def starts(self, data: Batch) -> Batch:
        """The steps of each sequence that imagination starts from."""
        last = self.config.agent.imag_last
        return data.map(lambda x: x[:, -last:]) if last else data

    def loss_scales(self) -> dict[str, float]:
        """Weight of every loss term by its name."""
        c = self.config.agent
        own = {"policy": c.scale_policy, "value": c.scale_value, "repval": c.scale_repval}
        return self.world_model.loss_scales() | own

    @torch.no_grad()
    def imagine(self, posterior: State, rand: Rand) -> tuple[Imagined, Tensor, dict[str, Tensor]]:
        """H+1 states from each starting state: predictions (N, H+1), features (N, H+1, F).

        No gradient flows through imagined states: the actor learns by REINFORCE.
        """
        count, horizon = self.config.agent.imag_last, self.config.agent.imag_length
        start = posterior.only(LATENT).map(lambda x: x.detach()[:, -count:]).flat()
        policy = self.actor(rand)
        path = self.world_model.rollout(start, policy, horizon=horizon, rand=rand)
        last = policy(path.states[-1], horizon)
        root = self.world_model.decode(start, keys=("reward", "continue")).predictions
        imagined = Imagined(
            action=torch.cat([path.actions, last[None]]).transpose(0, 1),
            reward=torch.cat([root["reward"][None], path.require("rewards")]).T,
            going_on=torch.cat([root["continue"][None], path.require("continues")]).T,
        )
        states = State.stack([state.only(LATENT) for state in path.states])
        outputs = {"reward": imagined.reward, "going_on": imagined.going_on}
        return imagined, features(states), {**outputs, "deter": states["deter"]}

    def actor(self, rand: Rand) -> Callable[[State, int], Tensor]:
        """The actor as a rollout's policy; the draw "action" (H+1, N, ...) forces its actions."""

        def policy(state: State, step: int) -> Tensor:
            now = rand.at(step)
            forced = now.given("action")
            if forced is not None:
                return forced
            action: Tensor = self.policy(features(state)).sample(now)
            return action

        return policy

    def _critics(self, feat: Tensor) -> Critics:
        logits = self.value(feat)
        with torch.no_grad():
            slow = self.slow_value.mean(self.slow_value(feat.detach()))
        return Critics(logits, self.value.mean(logits.detach()), slow, self.value.bins)

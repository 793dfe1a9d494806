"""The three learned slots: observations to a latent, its dynamics, and what is read off it.

State: "latent" (B, D); "cause" (B, D + E + A), the dynamics' input that led here, of which the
reward is a function, zeros where nothing preceded. With tasks also "task" (B,), its index, and
"embed" (B, E), its embedding.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from worldflux.core.actions import action_vector
from worldflux.core.interfaces import Decoder, DynamicsModel, ObservationEncoder, Policy
from worldflux.core.output import ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.rollout import AutoregressiveRollout, unroll
from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory
from worldflux.specs import TensorSpec
from worldflux_tdmpc2.config import ModelConfig
from worldflux_tdmpc2.distribution import expected
from worldflux_tdmpc2.images import PixelEncoder
from worldflux_tdmpc2.networks import fanned, mlp
from worldflux_tdmpc2.spaces import Sizes

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel

TASK = "task"
_KEPT = (TASK, "embed")


def features(state: State) -> Tensor:
    """What policy and termination see (..., D + E)."""
    if "embed" not in state:
        return state["latent"]
    return torch.cat([state["latent"], state["embed"]], -1)


def joint(state: State, action: Tensor) -> Tensor:
    """What dynamics, reward and Q see (..., D + E + A)."""
    return torch.cat([features(state), action], -1)


class LatentEncoder(ObservationEncoder):
    """Vectors through an MLP or an image through convolutions, to a SimNorm latent.

    A task's embedding is an input beside the vectors; an image is encoded without it.
    """

    def __init__(self, config: ModelConfig, obs_spec: Mapping[str, TensorSpec], cause: int) -> None:
        super().__init__()
        self.sizes = sizes = Sizes.of(config, obs_spec)
        self.cause = cause
        self.embedding = (
            nn.Embedding(len(config.tasks), config.task_dim, max_norm=1.0) if config.tasks else None
        )
        if self.embedding is not None:
            nn.init.uniform_(self.embedding.weight, -0.02, 0.02)
        self.net: nn.Module
        if sizes.image is not None:
            channels = obs_spec[sizes.image].shape[0]
            self.net = PixelEncoder(channels, config.latent_dim, config.simnorm_dim)
        else:
            hidden = [config.enc_dim] * max(config.enc_layers - 1, 1)
            inputs = sizes.vector + sizes.embed
            self.net = mlp(inputs, hidden, config.latent_dim, config.simnorm_dim)
        self.spec = dict(obs_spec)

    def forward(self, obs: dict[str, Tensor]) -> State:
        """Observations (B, ...) by key to a State; "task" is an index (B,)."""
        found = {}
        if self.embedding is not None:
            found = {TASK: obs[TASK], "embed": self.embedding(obs[TASK].long())}
        if self.sizes.image is not None:
            latent = self.net(obs[self.sizes.image])
        else:
            parts = [action_vector(obs[key], self.spec[key]).float() for key in self.sizes.keys]
            latent = self.net(torch.cat([*parts, *([found["embed"]] if found else [])], -1))
        nothing = latent.new_zeros(1, 1).expand(len(latent), self.cause)
        return State({"latent": latent, "cause": nothing, **found})


class LatentDynamics(DynamicsModel):
    """z' = d(z, e, a), deterministic (2310.16828, eq. 1)."""

    def __init__(self, config: ModelConfig, inputs: int) -> None:
        super().__init__()
        hidden = [config.mlp_dim, config.mlp_dim]
        self.net = mlp(inputs, hidden, config.latent_dim, config.simnorm_dim)

    def fan_out(self, state: State, action: Tensor) -> State:
        """`transition` of each State (B, ...) by N actions (B, N, A), without the "cause"."""
        kept = state.only(_KEPT).repeat(action.shape[1])
        return State({"latent": fanned(self.net, features(state), action), **kept.tensors})

    def transition(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        """The State (B, ...) after an action (B, A)."""
        cause = joint(state, action)
        kept = state.only(_KEPT).tensors
        return State({"latent": self.net(cause), "cause": cause, **kept})


class LatentDecoder(Decoder):
    """The reward of the transition that led to a State and, if episodic, whether it goes on.

    `aux` holds "reward_logits" (B, K) and "termination_logit" (B,), which the loss needs.
    """

    bins: Tensor

    def __init__(self, config: ModelConfig, inputs: int, bins: Tensor) -> None:
        super().__init__()
        hidden = [config.mlp_dim, config.mlp_dim]
        self.reward = mlp(inputs, hidden, config.bins)
        nn.init.zeros_(self.reward[-1].weight)  # type: ignore[arg-type]
        size = config.latent_dim + (config.task_dim if config.tasks else 0)
        self.termination = mlp(size, hidden, 1) if config.episodic else None
        self.simplex = config.simnorm_dim
        self.register_buffer("bins", bins, persistent=False)

    def fan_out(self, state: State, action: Tensor) -> Tensor:
        """Rewards (B * N,) of N actions (B, N, A) at each State (B, ...)."""
        return expected(fanned(self.reward, features(state), action).float(), self.bins)

    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> ModelOutput:
        output = ModelOutput()
        if keys is None or "reward" in keys:
            logits = self.reward(state["cause"]).float()
            preceded = (state["cause"][..., : self.simplex] != 0).any(-1)
            output.aux["reward_logits"] = logits
            output.predictions["reward"] = expected(logits, self.bins) * preceded
        if self.termination is not None and (keys is None or "continue" in keys):
            logit = self.termination(features(state)).float().squeeze(-1)
            output.aux["termination_logit"] = logit
            output.predictions["continue"] = 1 - torch.sigmoid(logit)
        return output


class LatentRollout(AutoregressiveRollout):
    """The default rollout which, told `states_only`, leaves out the predictions."""

    def forward(
        self,
        model: WorldModel,
        state: State,
        actions: Tensor | Policy | None,
        conditions: ConditionPayload | None = None,
        **options: Any,
    ) -> Trajectory:
        if not options.pop("states_only", False):
            return super().forward(model, state, actions, conditions, **options)
        states, chosen = unroll(model, state, actions, conditions, **options)
        return Trajectory(states=states, actions=chosen)

"""DreamerV3's world model: encoder, RSSM, decoder with reward and continue heads, the loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.actions import VectorActions
from worldflux.core.batch import Batch
from worldflux.core.interfaces import SLOTS
from worldflux.core.model import Observation, WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux.nn.two_hot import symexp_bins, two_hot_cross_entropy
from worldflux.specs import Capability, TensorSpec
from worldflux_dreamer import shared_losses
from worldflux_dreamer.dreamerv3 import losses
from worldflux_dreamer.dreamerv3.config import DreamerV3Config
from worldflux_dreamer.dreamerv3.networks import DreamerDecoder, Encoder, features
from worldflux_dreamer.dreamerv3.representation.kinds import make_representation
from worldflux_dreamer.dreamerv3.representation.reconstruction import (
    reconstruction_loss as reconstruction_loss,
)
from worldflux_dreamer.dreamerv3.rssm import RSSM
from worldflux_dreamer.shared_losses import masked_mean

LOGITS = ("prior_logits", "posterior_logits")


class DreamerV3WorldModel(WorldModel):
    """State: "deter" (B, D), "stoch" (B, S, K) one-hot. Predicts observations, reward, continue.

    After `encode` and `update` the State also holds "posterior_logits", after `transition` and
    `update` "prior_logits", both (B, S, K).
    """

    capabilities = frozenset(
        {
            Capability.OBS_DECODE,
            Capability.REWARD_PRED,
            Capability.CONTINUE_PRED,
            Capability.PLANNING,
        }
    )
    composable_support = frozenset(SLOTS)
    config: DreamerV3Config
    bins: Tensor

    def __init__(
        self,
        config: DreamerV3Config,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        model, action = config.model, self.required_action()
        self.fill(
            "observation_encoder", lambda: Encoder(model, obs_spec), expects={"embed": (None,)}
        )
        self.fill("action_conditioner", lambda: VectorActions(action), expects={"action": (None,)})
        embed, actions = self.features["embed"].size, self.features["action"].size
        self.fill(
            "dynamics_model",
            lambda: RSSM(model, actions, embed),
            expects={
                "deter": (model.deter,),
                **dict.fromkeys(("stoch", *LOGITS), (model.stoch, model.classes)),
            },
        )
        feat = model.deter + model.stoch * model.classes
        self.representation = make_representation(model, obs_spec, feat, embed)
        self.loss_spans_batch = self.representation.spans_batch
        decodes = self.representation.decodes
        self.fill(
            "decoder_module",
            lambda: DreamerDecoder(model, obs_spec if decodes else {}),
            expects={key: spec.shape for key, spec in self.prediction_spec().tensors.items()},
        )
        if not decodes:
            self.capabilities = self.capabilities - {Capability.OBS_DECODE}
        self.register_buffer("bins", symexp_bins(model.bins), persistent=False)

    def state_spec(self) -> StateSpec:
        c = self.config.model
        return StateSpec(
            {"deter": TensorSpec((c.deter,)), "stoch": TensorSpec((c.stoch, c.classes))}
        )

    def prediction_spec(self) -> PredictionSpec:
        observed = {
            key: TensorSpec(spec.shape, "float32", 0.0, 1.0) if len(spec.shape) == 3 else spec
            for key, spec in self.obs_spec.items()
            if self.representation.decodes
        }
        scalars = {"reward": TensorSpec(()), "continue": TensorSpec((), low=0.0, high=1.0)}
        return PredictionSpec(observed | scalars)

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """KL, reconstruction, reward and continue terms; draws: "stoch" (B, T, S)."""
        data = self.targets(batch)
        terms = self.loss_terms(data, self.observe_sequence(batch, rand=rand))
        means = {name: masked_mean(term, data.mask) for name, term in terms.items()}
        scales = self.loss_scales()
        total = torch.stack([scales[name] * mean for name, mean in means.items()]).sum()
        return LossOutput(loss=total, components=means)

    def loss_scales(self) -> dict[str, float]:
        """Weight of every loss term by its name; each observation is a term."""
        c = self.config.model
        scales = {"dyn": c.scale_dyn, "rep": c.scale_rep, "rew": c.scale_rew, "con": c.scale_con}
        return scales | self.representation.scales()

    def targets(self, batch: Batch) -> Batch:
        """What losses compare with (B, T, ...): the steps after the context, checked."""
        _check_keys(batch, self.obs_spec)
        return batch.without_context()

    def update(
        self,
        state: State,
        action: ActionPayload | Tensor | None,
        obs: Observation,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        *,
        rand: Rand | None = None,
    ) -> State:
        """The posterior State (B, ...), which also holds the "prior_logits" of the same step."""
        found = super().update(state, action, obs, conditions, deterministic, rand=rand)
        prior = self.dynamics_model.prior_logits(found["deter"])  # type: ignore[union-attr,operator]
        return found.with_({"prior_logits": prior})

    def restored(self, stored: Mapping[str, Tensor]) -> State | None:
        """The State (B, ...) of stored "deter" (B, D) and classes "stoch" (B, S)."""
        if not {"deter", "stoch"} <= stored.keys():
            return None
        like = self.initial(1, stored["deter"].device)
        return State(
            {
                "deter": stored["deter"].to(like["deter"].dtype),
                "stoch": as_one_hot(stored["stoch"], like["stoch"]),
            }
        )

    def loss_terms(self, data: Batch, posterior: State) -> dict[str, Tensor]:
        """Named losses (B, T) of the world model, unscaled (agent.py:Agent.loss)."""
        c = self.config.model
        output = self.decode(posterior)
        post, prior = posterior["posterior_logits"], posterior["prior_logits"]
        dyn, rep = losses.kl_losses(post, prior, c.unimix, c.free_nats)
        goes_on = losses.continue_target(data.is_terminal, c.horizon, c.contdisc)
        rewards = torch.log_softmax(output.aux["reward"], -1)
        terms = {
            "dyn": dyn,
            "rep": rep,
            "rew": two_hot_cross_entropy(rewards, data.require("reward"), self.bins),
            "con": shared_losses.binary_cross_entropy(output.aux["continue"], goes_on),
        }
        terms |= self.representation(features(posterior), posterior["embed"], output, data)
        for name, term in terms.items():
            assert term.shape == data.is_first.shape, (name, term.shape, data.is_first.shape)
        return terms


def as_one_hot(stoch: Tensor, like: Tensor) -> Tensor:
    """Classes (B, S) or one-hots (B, S, K) as one-hots (B, S, K) of the dtype of `like`."""
    if stoch.ndim == like.ndim:
        return stoch.to(like.dtype)
    return F.one_hot(stoch.long(), like.shape[-1]).to(like.dtype)


def _check_keys(batch: Batch, obs_spec: Mapping[str, TensorSpec]) -> None:
    for key in obs_spec:
        if key not in batch.obs:
            have = ", ".join(batch.obs) or "nothing"
            raise ContractError(f"Batch obs lacks {key!r}. It has: {have}.")

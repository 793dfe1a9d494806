"""DreamerV3's world model: encoder, RSSM, decoder with reward and continue heads, the loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.core.actions import VectorActions
from worldflux.core.batch import Batch
from worldflux.core.interfaces import SLOTS, Draws
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux.nn.two_hot import symexp_bins, two_hot_cross_entropy
from worldflux.specs import Capability, TensorSpec
from worldflux_dreamer import losses
from worldflux_dreamer.config import DreamerV3Config
from worldflux_dreamer.networks import DreamerDecoder, Encoder, features
from worldflux_dreamer.representation.kinds import make_representation
from worldflux_dreamer.representation.reconstruction import (
    reconstruction_loss as reconstruction_loss,
)
from worldflux_dreamer.rssm import RSSM
from worldflux_dreamer.sequences import Sequences, sequences


class DreamerV3WorldModel(WorldModel):
    """State: "deter" (B, D), "stoch" (B, S, K) one-hot. Predicts observations, reward, continue."""

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
        model, action = config.model, only_action(action_spec)
        encoder = Encoder(model, obs_spec)
        self.observation_encoder = encoder
        self.action_conditioner = VectorActions(action)
        self.dynamics_model = RSSM(model, action.size, encoder.size)
        feat = model.deter + model.stoch * model.classes
        self.representation = make_representation(model, obs_spec, feat, encoder.size)
        self.loss_spans_batch = self.representation.spans_batch
        decodes = self.representation.decodes
        self.decoder_module = DreamerDecoder(model, obs_spec if decodes else {})
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
        self,
        batch: Batch,
        *,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> LossOutput:
        """KL, reconstruction, reward and continue terms; `draws["stoch"]` (B, T, S)."""
        data = self.sequences(batch)
        terms = self.loss_terms(data, self.observe_sequence(data, draws, generator))
        means = {name: masked_mean(term, data.mask) for name, term in terms.items()}
        scales = self.loss_scales()
        total = torch.stack([scales[name] * mean for name, mean in means.items()]).sum()
        return LossOutput(loss=total, components=means)

    def loss_scales(self) -> dict[str, float]:
        """Weight of every loss term by its name; each observation is a term."""
        c = self.config.model
        scales = {"dyn": c.scale_dyn, "rep": c.scale_rep, "rew": c.scale_rew, "con": c.scale_con}
        return scales | self.representation.scales()

    def sequences(self, batch: Batch) -> Sequences:
        """The batch without its context, checked against this model's spaces."""
        _check_keys(batch, self.obs_spec)
        return sequences(batch, self.initial(batch.batch_size, batch.is_first.device))

    def observe_sequence(
        self, data: Sequences, draws: Draws | None, generator: torch.Generator | None
    ) -> State:
        """Posterior State (B, T, ...) of the sequences, through encoder and dynamics slots.

        It also holds "embed", what the encoder made of the observations.
        """
        embedded: State = self._slot("observation_encoder", "loss")(data.obs)
        dynamics = self._slot("dynamics_model", "loss")
        posterior: State = dynamics.observe_sequence(  # type: ignore[operator]
            data.start,
            self.condition(data.prev_action),
            embedded,
            data.is_first,
            draws=draws,
            generator=generator,
        )
        return State({**posterior.tensors, "embed": embedded["embed"]})

    def loss_terms(self, data: Sequences, posterior: State) -> dict[str, Tensor]:
        """Named losses (B, T) of the world model, unscaled (agent.py:Agent.loss)."""
        c = self.config.model
        output = self.decode(posterior)
        prior = self.dynamics_model.prior_logits(posterior["deter"])  # type: ignore[union-attr,operator]
        dyn, rep = losses.kl_losses(posterior["logit"], prior, c.unimix, c.free_nats)
        goes_on = losses.continue_target(data.is_terminal, c.horizon, c.contdisc)
        rewards = torch.log_softmax(output.aux["reward"], -1)
        terms = {
            "dyn": dyn,
            "rep": rep,
            "rew": two_hot_cross_entropy(rewards, data.reward, self.bins),
            "con": losses.binary_cross_entropy(output.aux["continue"], goes_on),
        }
        terms |= self.representation(features(posterior), posterior["embed"], output, data)
        for name, term in terms.items():
            assert term.shape == data.shape, (name, term.shape, data.shape)
        return terms


def masked_mean(term: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of a term (B, T'), over the steps where `mask` (B, T) holds."""
    if mask is None:
        return term.mean()
    weight = mask[:, : term.shape[1]].float()
    return (term * weight).sum() / weight.sum().clamp(min=1)


def only_action(action_spec: Mapping[str, TensorSpec]) -> TensorSpec:
    """The one action space; several choices at once are one multi-discrete space."""
    if len(action_spec) != 1:
        raise ContractError(
            f"DreamerV3 takes one action space, got {len(action_spec)}: "
            f"{', '.join(action_spec) or 'none'}. Join choices into one multi-discrete space."
        )
    return next(iter(action_spec.values()))


def _check_keys(batch: Batch, obs_spec: Mapping[str, TensorSpec]) -> None:
    for key in obs_spec:
        if key not in batch.obs:
            have = ", ".join(batch.obs) or "nothing"
            raise ContractError(f"Batch obs lacks {key!r}. It has: {have}.")

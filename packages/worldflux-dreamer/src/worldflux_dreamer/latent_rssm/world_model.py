"""The world model that PlaNet, DreamerV1, V2 and the modular RSSM are made of."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from worldflux.config import Config
from worldflux.core.actions import VectorActions
from worldflux.core.batch import Batch
from worldflux.core.interfaces import SLOTS, Decoder, DynamicsModel
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput, ModelOutput
from worldflux.core.rand import Rand
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.core.state import State
from worldflux.specs import Capability, TensorSpec
from worldflux_dreamer.latent_rssm.config import DiscountedConfig, LatentConfig, SizesConfig
from worldflux_dreamer.latent_rssm.images import quantised
from worldflux_dreamer.latent_rssm.latents import Latent, Stats, detached, make_latent
from worldflux_dreamer.latent_rssm.layers import ScalarHead
from worldflux_dreamer.latent_rssm.losses import freed, normal_loss, transformed_reward
from worldflux_dreamer.latent_rssm.networks import ConstantContinue, Encoder, LatentDecoder
from worldflux_dreamer.latent_rssm.rssm import RSSM
from worldflux_dreamer.shared_losses import binary_cross_entropy, choice_loss, masked_mean

Specs = Mapping[str, TensorSpec]


class LatentWorldModel(WorldModel):
    """State: what the dynamics' `initial` holds. Predicts observations and reward.

    A recurrent core of your own is an `RSSM(model.sizes, MyCore, model.action_size,
    model.embed_size)` in the dynamics' slot. Any other dynamics also needs `prior(state) -> stats`,
    the latent's distribution before the observation, and puts the posterior's into its States.
    """

    capabilities = frozenset({Capability.OBS_DECODE, Capability.REWARD_PRED, Capability.PLANNING})
    composable_support = frozenset(SLOTS) - {"rollout_executor"}

    def __init__(self, config: Config, obs_spec: Specs, action_spec: Specs) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.sizes: SizesConfig = config.model  # type: ignore[attr-defined]
        self.latent: Latent = make_latent(self.sizes)
        action = self.required_action()
        self.fill(
            "observation_encoder",
            lambda: self.make_encoder(self.sizes, obs_spec),
            expects={"embed": (None,)},
        )
        self.fill("action_conditioner", lambda: VectorActions(action), expects={"action": (None,)})
        self.action_size = self.features["action"].size
        self.embed_size = self.features["embed"].size
        self.fill(
            "dynamics_model",
            lambda: self.make_dynamics(self.sizes, self.action_size, self.embed_size),
            expects={
                "deter": (self.sizes.deter,),
                "stoch": self.latent.shape,
                **dict.fromkeys(self.latent_keys()),
            },
        )
        self.fill(
            "decoder_module",
            lambda: self.make_decoder(self.sizes, obs_spec),
            expects={key: spec.shape for key, spec in self.prediction_spec().tensors.items()},
        )

    def make_encoder(self, sizes: SizesConfig, obs_spec: Specs) -> Encoder:
        """What fills the encoder's slot."""
        return Encoder(sizes, obs_spec)

    def make_dynamics(self, sizes: SizesConfig, action_size: int, embed: int) -> DynamicsModel:
        """What fills the dynamics' slot."""
        assert isinstance(sizes, LatentConfig)
        return RSSM(sizes, sizes.core, action_size, embed)

    def make_decoder(self, sizes: SizesConfig, obs_spec: Specs) -> Decoder:
        """What fills the decoder's slot."""
        return LatentDecoder(sizes, obs_spec, self.latent.shape)

    def state_spec(self) -> StateSpec:
        start = self.initial(1)
        return StateSpec({key: TensorSpec(tuple(x.shape[1:])) for key, x in start.tensors.items()})

    def prediction_spec(self) -> PredictionSpec:
        observed = {
            key: TensorSpec(spec.shape, "float32", 0.0, 1.0) if len(spec.shape) == 3 else spec
            for key, spec in self.obs_spec.items()
        }
        scalars = {"reward": TensorSpec(())}
        if self.supports_continue:
            scalars["continue"] = TensorSpec((), low=0.0, high=1.0)
        return PredictionSpec(observed | scalars)

    # Learning

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """Terms averaged over the batch, weighted and summed; draws: the dynamics' (B, T, ...)."""
        return self.reduced(self.targets(batch), self.observe_sequence(batch, rand=rand))

    def targets(self, batch: Batch) -> Batch:
        """What losses compare with (B, T, ...): the steps after the context, checked."""
        self.validate_batch_contract(batch)
        return batch.without_context()

    def reduced(self, data: Batch, posterior: State) -> LossOutput:
        """The loss of posterior States (B, T, ...), compared with `targets`."""
        output = self.decode(posterior)
        stats = {key: posterior[key] for key in self.latent_keys()}
        prior: Stats = self.dynamics_model.prior(posterior)  # type: ignore[union-attr,operator]
        terms = {**self.divergences(stats, prior), **self.prediction_losses(data, output)}
        for name, term in terms.items():
            assert term.shape == data.is_first.shape, (name, term.shape, data.is_first.shape)
        means = {name: masked_mean(term, data.mask) for name, term in terms.items()}
        means = self.freed(means)
        scales = self.loss_scales()
        assert scales.keys() == means.keys(), (sorted(scales), sorted(means))
        total = torch.stack([scales[name] * mean for name, mean in means.items()]).sum()
        return LossOutput(loss=total, components=means)

    def latent_keys(self) -> tuple[str, ...]:
        """State tensors that describe the posterior."""
        return ("mean", "std") if self.sizes.latent == "gaussian" else ("logit",)

    @abstractmethod
    def divergences(self, posterior: Stats, prior: Stats) -> dict[str, Tensor]:
        """KL terms (B, T) by name."""

    def freed(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """Batch means of all terms with free nats taken into account, where they apply to means."""
        return means

    def prediction_losses(self, data: Batch, output: ModelOutput) -> dict[str, Tensor]:
        """Negative log likelihoods (B, T) of observations and reward."""
        terms = {
            key: observation_loss(output, key, data.obs[key], spec, self.sizes.bits)
            for key, spec in self.obs_spec.items()
        }
        terms["reward"] = normal_loss(output.predictions["reward"], data.require("reward"), 0)
        return terms

    def loss_scales(self) -> dict[str, float]:
        """Weight of every term by its name."""
        scales = {"kl": self.sizes.scale_kl, "reward": self.sizes.scale_reward}
        return scales | {key: self.sizes.scale_obs for key in self.obs_spec}


class BalancedKL:
    """Mixed into a model: the KL once for the prior, weight `balance`, once for the posterior.

    Free nats apply to the batch's mean of each (2010.02193, algorithm 2).
    """

    loss_spans_batch = True
    latent: Latent

    @property
    @abstractmethod
    def balance(self) -> float:
        """alpha, the share of the KL that trains the prior; the rest trains the posterior."""

    def divergences(self, posterior: Stats, prior: Stats) -> dict[str, Tensor]:
        """The term "dyn" pulls the prior to the posterior, "rep" the posterior to the prior."""
        return {
            "dyn": self.latent.kl(detached(posterior), prior),
            "rep": self.latent.kl(posterior, detached(prior)),
        }

    def freed(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        free_nats: float = self.sizes.free_nats  # type: ignore[attr-defined]
        return freed(means, ("dyn", "rep"), free_nats)

    def loss_scales(self) -> dict[str, float]:
        scales: dict[str, float] = super().loss_scales()  # type: ignore[misc]
        kl = scales.pop("kl")
        return {"dyn": self.balance * kl, "rep": (1 - self.balance) * kl, **scales}


class DiscountedWorldModel(LatentWorldModel):
    """Also predicts "continue", discount included: learned by a head, or constant.

    Rewards may be bounded before they are learned (`model.rewards`).
    """

    capabilities = LatentWorldModel.capabilities | {Capability.CONTINUE_PRED}
    composable_support = frozenset(SLOTS)
    sizes: DiscountedConfig

    def make_decoder(self, sizes: SizesConfig, obs_spec: Specs) -> Decoder:
        assert isinstance(sizes, DiscountedConfig)
        going_on: nn.Module = ConstantContinue(sizes.discount)
        if sizes.continue_head:
            width = sizes.deter + math.prod(self.latent.shape)
            layers = sizes.continue_layers
            going_on = ScalarHead(width, sizes.units, layers, sizes.activation)
        else:
            self.constant_predictions = frozenset({"continue"})
        return LatentDecoder(sizes, obs_spec, self.latent.shape, going_on)

    def targets(self, batch: Batch) -> Batch:
        data = super().targets(batch)
        return replace(data, reward=transformed_reward(data.require("reward"), self.sizes.rewards))

    def prediction_losses(self, data: Batch, output: ModelOutput) -> dict[str, Tensor]:
        terms = super().prediction_losses(data, output)
        if self.sizes.continue_head:
            target = self.sizes.discount * (~data.is_terminal).float()
            terms["continue"] = binary_cross_entropy(output.aux["continue"], target)
        return terms

    def loss_scales(self) -> dict[str, float]:
        scales = super().loss_scales()
        return scales | (
            {"continue": self.sizes.scale_continue} if self.sizes.continue_head else {}
        )


def observation_loss(
    output: ModelOutput, key: str, target: Tensor, spec: TensorSpec, bits: int
) -> Tensor:
    """Negative log likelihood (...) of one observation: unit normal, or of choices."""
    if len(spec.shape) == 3:
        return normal_loss(output.aux[key], quantised(target, bits), 3)
    lead = target.shape[: target.ndim - len(spec.shape)]
    flat = target.reshape(*lead, -1)
    if spec.discrete:
        return choice_loss(output.aux[key], flat, spec.counts)
    return normal_loss(output.aux[key], flat, 1)

"""Configuration of DreamerV2 (2010.02193; `configs.yaml` of danijar/dreamerv2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from worldflux.config import Config
from worldflux_dreamer.latent_rssm.config import (
    Activation,
    BehaviorConfig,
    Core,
    DiscountedConfig,
    Probability,
)


class ModelConfig(DiscountedConfig):
    """The world model; `free_nats` apply to the batch's mean of each KL."""

    latent: Literal["gaussian", "categorical"] = "categorical"
    """Distribution of the stochastic state (`rssm.discrete`)."""
    core: Core = "norm_gru"
    """Recurrent core (`nets.py:GRUCell`)."""
    deter: PositiveInt = 600
    """D, units of the deterministic state (`rssm.deter`)."""
    hidden: PositiveInt = 600
    """Units of the layers inside the RSSM (`rssm.hidden`)."""
    stoch: PositiveInt = 32
    """S, number of categorical latents (`rssm.stoch`)."""
    std: Literal["softplus", "sigmoid2"] = "sigmoid2"
    """Standard deviation of Gaussian latents, where chosen (`rssm.std_act`)."""
    image_activation: Activation = "elu"
    """After every image convolution (`encoder.act`)."""
    depth: PositiveInt = 48
    """Base number of image channels (`encoder.cnn_depth`)."""
    vector_layers: PositiveInt = 4
    """Layers of the vector encoder and decoder (`encoder.mlp_layers`)."""
    reward_layers: PositiveInt = 4
    """Layers of the reward head (`reward_head.layers`)."""
    continue_layers: PositiveInt = 4
    """Layers of the continue head (`discount_head.layers`)."""
    free_nats: NonNegativeFloat = 0.0
    """KL in nats that costs nothing (`kl.free`, `kl.free_avg`)."""
    balance: Probability = 0.8
    """alpha, share of the KL that trains the prior, the rest is the posterior's (`kl.balance`)."""


class AgentConfig(BehaviorConfig):
    """Behaviour by REINFORCE, gradients through the dynamics, or a mixture."""

    gradient: Literal["auto", "reinforce", "dynamics", "both"] = "auto"
    """The actor's estimator (`actor_grad`); auto is reinforce for choices, else dynamics."""
    mix: Probability = 0.1
    """Share of the dynamics gradient in `both` (`actor_grad_mix`)."""
    entropy: NonNegativeFloat = 1e-4
    """Weight of the actor's entropy (`actor_ent`)."""
    min_std: Annotated[float, Field(gt=0)] = 0.1
    """Least standard deviation of the truncated normal (`actor.min_std`)."""
    critic_layers: PositiveInt = 4
    """Layers of the critic (`critic.layers`)."""
    slow_every: PositiveInt = 100
    """Updates between copies of the critic into the target (`slow_target_update`)."""
    slow_fraction: Probability = 1.0
    """Share of the critic in such a copy (`slow_target_fraction`)."""
    model_lr: Annotated[float, Field(gt=0)] = 3e-4
    """Adam's learning rate for the world model (`model_opt.lr`)."""
    eps: Annotated[float, Field(gt=0)] = 1e-5
    """Adam's epsilon (`model_opt.eps`)."""
    decay: NonNegativeFloat = 1e-6
    """Share of every weight that each update removes (`model_opt.wd`)."""
    batch: PositiveInt = 16
    """B, sequences per update (`dataset.batch`)."""
    oversample_ends: bool = False
    """Whether sequences lie in single episodes, drawn alike, whose ends come more often
    (`dataset.oversample_ends`); else they are drawn uniformly from all steps."""
    prefill: int = Field(1000, ge=0)
    """Random agent steps before learning (`prefill`)."""


class DreamerV2Config(Config):
    """DreamerV2: the rooms `model.*` and `agent.*`."""

    model: ModelConfig = ModelConfig()
    """The world model."""
    agent: AgentConfig = AgentConfig()
    """Behaviour learning, optimisers and training plan."""


PRESETS = {
    "dmc": DreamerV2Config(
        model=ModelConfig(deter=200, hidden=200, free_nats=1.0),
    ),
    "atari": DreamerV2Config(
        model=ModelConfig(
            discount=0.995,
            continue_head=True,
            scale_continue=5.0,
            scale_kl=0.1,
            rewards="tanh",
        ),
        agent=AgentConfig(
            model_lr=2e-4,
            actor_lr=4e-5,
            critic_lr=1e-4,
            entropy=1e-3,
            batch=50,
            updates_per_step=0.25,
            prefill=50_000,
            pretrain=1,
            oversample_ends=True,
        ),
    ),
}
"""`dmc` is the repository's; an update per 5 steps of action repeat 2. `atari` is the paper's
table D.1 (batch 50, discount 0.995, an update per 4 steps); the repository later used 16, 0.999 and
16. What the table does not list (prefill, weight of the continue head) is the repository's."""

"""What the models before DreamerV3 share: one RSSM with a choice of latents and cores, networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from worldflux.config import Config

Probability = Annotated[float, Field(ge=0, le=1)]
Activation = Literal["elu", "relu", "silu"]
Core = Literal["gru", "norm_gru", "block_gru", "lstm"]


class SizesConfig(Config):
    """A latent dynamics with its encoder, decoder and heads."""

    latent: Literal["gaussian", "categorical"] = "gaussian"
    """Distribution of the stochastic state (PlaNet, V1: Gaussian; V2: categorical)."""
    deter: PositiveInt = 200
    """D, units of the deterministic state."""
    hidden: PositiveInt = 200
    """Units of the layers inside the RSSM."""
    stoch: PositiveInt = 30
    """S, size of the stochastic state, or number of its categorical latents."""
    classes: Annotated[int, Field(ge=2)] = 32
    """K, classes of each categorical latent."""
    blocks: PositiveInt = 8
    """Blocks of the core `block_gru`; they divide D."""
    min_std: PositiveFloat = 0.1
    """Least standard deviation of Gaussian latents."""
    std: Literal["softplus", "sigmoid2"] = "softplus"
    """How a layer's output becomes a standard deviation; sigmoid2 is 2 sigmoid(x / 2)."""
    activation: Activation = "elu"
    """After every dense layer."""
    image_activation: Activation = "relu"
    """After every image convolution."""
    depth: PositiveInt = 32
    """Base number of image channels: 1, 2, 4 and 8 times as many in the four stages."""
    bits: Annotated[int, Field(ge=1, le=8)] = 8
    """Bits of each colour that the model sees."""
    units: PositiveInt = 400
    """Units of the vector encoder and decoder and of every head."""
    vector_layers: PositiveInt = 3
    """Layers of the vector encoder and decoder."""
    reward_layers: PositiveInt = 2
    """Layers of the reward head."""
    free_nats: NonNegativeFloat = 3.0
    """KL in nats that costs nothing."""
    scale_kl: NonNegativeFloat = 1.0
    """Weight of the KL."""
    scale_obs: NonNegativeFloat = 1.0
    """Weight of each observation's negative log likelihood."""
    scale_reward: NonNegativeFloat = 1.0
    """Weight of the reward's negative log likelihood."""


class LatentConfig(SizesConfig):
    """A recurrent state-space model."""

    core: Core = "gru"
    """Recurrent core (PlaNet, V1: gru; V2: norm_gru; V3: block_gru)."""


class DiscountedConfig(LatentConfig):
    """A model that also predicts how much of the future counts."""

    discount: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """gamma. Predicted continues carry it: the head learns gamma where the episode goes on, 0 at
    its terminal step. Without the head every step continues with gamma."""
    continue_head: bool = False
    """Whether there is that head (`pcont`, `pred_discount`); control tasks never terminate."""
    continue_layers: PositiveInt = 3
    """Layers of the continue head."""
    scale_continue: NonNegativeFloat = 1.0
    """Weight of the continue head's cross entropy."""
    rewards: Literal["identity", "tanh", "sign"] = "identity"
    """What is done to rewards before the model learns them (`clip_rewards`)."""


class BehaviorConfig(Config):
    """Behaviour learning in imagination, optimisers, and how to be trained."""

    horizon: Annotated[int, Field(ge=3)] = 15
    """H, imagined steps."""
    lam: Probability = 0.95
    """Decay of the lambda-return."""
    actor_layers: PositiveInt = 4
    """Layers of the actor."""
    critic_layers: PositiveInt = 3
    """Layers of the critic."""
    min_std: PositiveFloat = 1e-4
    """Least standard deviation of continuous actions."""
    model_lr: PositiveFloat = 6e-4
    """Adam's learning rate for the world model."""
    actor_lr: PositiveFloat = 8e-5
    """Adam's learning rate for the actor."""
    critic_lr: PositiveFloat = 8e-5
    """Adam's learning rate for the critic."""
    eps: PositiveFloat = 1e-7
    """Adam's epsilon."""
    clip: PositiveFloat = 100.0
    """Largest gradient norm of each of the three."""
    decay: NonNegativeFloat = 0.0
    """Share of every weight that each update removes, not multiplied by the learning rate."""
    explore: NonNegativeFloat = 0.0
    """When training: std of noise on continuous actions, or probability of a random choice."""
    explore_min: NonNegativeFloat = 0.0
    """What `explore` falls to."""
    explore_updates: NonNegativeInt = 0
    """Updates over which it falls linearly; 0 keeps it."""
    batch: PositiveInt = 50
    """B, sequences per update."""
    length: Annotated[int, Field(ge=2)] = 50
    """T, steps per sequence."""
    updates_per_step: PositiveFloat = 0.2
    """Updates per agent step."""
    prefill: NonNegativeInt = 2500
    """Random agent steps before learning."""
    pretrain: NonNegativeInt = 100
    """Updates done at once when learning begins."""

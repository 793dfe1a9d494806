"""Configuration of DIAMOND (2405.12399). Sources: eloialonso/diamond, `config/` or named."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from worldflux.config import Config

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Sizes = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Quarters = Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)]


class LevelsConfig(Config):
    """Levels of an image network, the largest image first."""

    cond: PositiveInt = 256
    """D, size of the condition (`cond_channels`)."""
    channels: Sizes = (64, 64, 64, 64)
    """C of each level (`channels`)."""
    depths: Sizes = (2, 2, 2, 2)
    """Residual blocks of each level (`depths`)."""
    attention: tuple[bool, ...] = (False, False, False, False)
    """Whether a level's blocks attend; those in the middle always do (`attn_depths`)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.channels) == len(self.depths) == len(self.attention):
            raise ValueError(
                f"channels={self.channels}, depths={self.depths} and attention={self.attention} "
                "need one entry for each level"
            )
        return self


class DenoiserConfig(LevelsConfig):
    """The denoiser, the noise it learns from and the sampler that it serves."""

    history: PositiveInt = 4
    """K, frames and actions that a frame is predicted from (`num_steps_conditioning`)."""
    sigma_data: PositiveFloat = 0.5
    """Deviation that frames in [-1, 1] are taken to have (`sigma_data`)."""
    sigma_offset: NonNegativeFloat = 0.3
    """Deviation of the noise that a channel's pixels share (`sigma_offset_noise`)."""
    loc: float = -0.4
    """Mean of the logarithm of training's noise levels (`sigma_distribution.loc`)."""
    scale: PositiveFloat = 1.2
    """Its deviation (`sigma_distribution.scale`)."""
    train_sigma_min: PositiveFloat = 2e-3
    """Smallest noise level in training (`sigma_distribution.sigma_min`)."""
    train_sigma_max: PositiveFloat = 20.0
    """Largest noise level in training (`sigma_distribution.sigma_max`)."""
    steps: PositiveInt = 3
    """Steps from noise to a frame (`diffusion_sampler.num_steps_denoising`)."""
    sigma_min: PositiveFloat = 2e-3
    """Noise level of the sampler's last step (`diffusion_sampler.sigma_min`)."""
    sigma_max: PositiveFloat = 5.0
    """Noise level of its first step; sampling starts from N(0, 1) all the same (`sigma_max`)."""
    rho: Annotated[float, Field(ge=0.1)] = 7.0
    """How dense its levels are near the smallest (`diffusion_sampler.rho`)."""
    order: Literal[1, 2] = 1
    """1 for Euler steps, 2 for Heun's (`diffusion_sampler.order`)."""
    s_churn: NonNegativeFloat = 0.0
    """Noise that is put back before steps, over all steps (`diffusion_sampler.s_churn`)."""
    s_tmin: NonNegativeFloat = 0.0
    """Smallest noise level at which some is (`diffusion_sampler.s_tmin`)."""
    s_tmax: PositiveFloat | None = None
    """Largest noise level at which some is, None for all (`diffusion_sampler.s_tmax`)."""
    s_noise: PositiveFloat = 1.0
    """Deviation of what is put back (`diffusion_sampler.s_noise`)."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.cond % (2 * self.history):
            raise ValueError(
                f"cond={self.cond} is no multiple of {2 * self.history}: {self.history} actions "
                "take equal parts of it, cosines and sines half each"
            )
        return self


class RewardEndConfig(LevelsConfig):
    """The model of rewards and ends."""

    cond: PositiveInt = 128
    """D, size of the action's embedding (`cond_channels`)."""
    channels: Sizes = (32, 32, 32, 32)
    """C of each level (`channels`)."""
    lstm: PositiveInt = 512
    """Units of its memory (`lstm_dim`)."""
    reward_size: PositiveFloat = 1.0
    """The reward that a predicted sign stands for; only signs are learnt."""


class ModelConfig(Config):
    """The world model."""

    denoiser: DenoiserConfig = DenoiserConfig()
    """The next frame, out of noise."""
    reward_end: RewardEndConfig = RewardEndConfig()
    """Rewards and ends, of frames."""
    whiten: bool = False
    """Whether rewards, ends and policy are read from pixels less their mean in the data, over
    their deviation, so that small things count; else from frames in [-1, 1], as published."""


class OptimizerConfig(Config):
    """AdamW for one of the three networks."""

    lr: PositiveFloat = 1e-4
    """Learning rate (`optimizer.lr`)."""
    weight_decay: NonNegativeFloat = 1e-2
    """Decay of what multiplies, not of biases, norms and embeddings (`weight_decay`)."""
    eps: PositiveFloat = 1e-8
    """Adam's eps (`optimizer.eps`)."""
    warmup: NonNegativeInt = 100
    """Updates over which the rate rises from 0 (`lr_warmup_steps`)."""
    clip: PositiveFloat = 1.0
    """Largest gradient norm (`max_grad_norm`)."""
    burst: NonNegativeInt = 10_000
    """Updates when learning begins (`steps_first_epoch`)."""
    updates_per_step: NonNegativeFloat = 4.0
    """Updates per collected step after that: 400 an epoch of 100 steps (`steps_per_epoch`)."""
    batch: PositiveInt = 32
    """B, sequences in an update (`batch_size`)."""


class AgentConfig(Config):
    """Learning in dreams, and acting."""

    channels: Sizes = (32, 32, 64, 64)
    """C of each level of the policy's network (`actor_critic.channels`)."""
    down: tuple[bool, ...] = (True, True, True, True)
    """Whether a level halves the image (`actor_critic.down`)."""
    lstm: PositiveInt = 512
    """Units of the policy's memory (`actor_critic.lstm_dim`)."""
    gamma: Fraction = 0.985
    """Discount (`actor_critic_loss.gamma`)."""
    lam: Fraction = 0.95
    """Lambda of the returns (`actor_critic_loss.lambda_`)."""
    value_weight: NonNegativeFloat = 1.0
    """Weight of the value loss (`weight_value_loss`)."""
    entropy_weight: NonNegativeFloat = 0.001
    """Weight of the policy's entropy (`weight_entropy_loss`)."""
    horizon: PositiveInt = 15
    """H, imagined steps in an update (`backup_every`)."""
    dream_length: PositiveInt = 15
    """Steps after which a dream is cut off and another begins (`world_model_env.horizon`)."""
    epsilon: Fraction = 0.01
    """Chance of a random action where experience is collected (`collection.train.epsilon`)."""
    greedy: bool = False
    """Whether evaluation takes the likeliest action; as published it samples."""
    unroll: PositiveInt = 2
    """Frames in a row that the denoiser learns to predict, from its own after the first
    (`num_autoregressive_steps` + 1)."""
    reward_steps: PositiveInt = 19
    """Steps of a sequence for rewards and ends (burn-in 4 + horizon 15)."""
    weights: Quarters = (0.1, 0.1, 0.1, 0.7)
    """Chances of equal parts of the episodes, oldest first (`sample_weights`)."""
    start: NonNegativeInt = 5000
    """Steps before learning begins (`collection.train.first_epoch.min`)."""
    collect_until: PositiveInt | None = 100_000
    """Steps after which nothing more is collected; None is never (`num_steps_total`)."""
    denoiser: OptimizerConfig = OptimizerConfig()
    """The denoiser's optimiser."""
    reward_end: OptimizerConfig = OptimizerConfig(clip=100.0)
    """That of rewards and ends."""
    actor_critic: OptimizerConfig = OptimizerConfig(clip=100.0, weight_decay=0.0, burst=5000)
    """That of policy and value; its batch is the number of dreams."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.channels) != len(self.down):
            raise ValueError(
                f"channels={self.channels} and down={self.down} need one entry for each level"
            )
        return self


class DiamondConfig(Config):
    """DIAMOND: world model and agent."""

    model: ModelConfig = ModelConfig()
    """The world model."""
    agent: AgentConfig = AgentConfig()
    """Learning and acting."""


def _sized(width: int, depth: int, cond: int, policy: Sizes) -> DiamondConfig:
    """A size of document 004: `width` channels, half of it for rewards and ends."""
    return DiamondConfig(
        model=ModelConfig(
            denoiser=DenoiserConfig(cond=cond, channels=(width,) * 4, depths=(depth,) * 4),
            reward_end=RewardEndConfig(channels=(width // 2,) * 4, lstm=8 * width),
        ),
        agent=AgentConfig(channels=policy, lstm=8 * width),
    )


PRESETS = {
    "diamond": DiamondConfig(),
    "small": _sized(32, 2, 128, (16, 16, 32, 32)),
    "medium": _sized(64, 2, 256, (32, 32, 64, 64)),
    "large": _sized(128, 3, 512, (64, 64, 128, 128)),
    "tiny": DiamondConfig(  # for images of 16 x 16, on a CPU: one phase after another
        model=ModelConfig(
            denoiser=DenoiserConfig(
                cond=64, channels=(16, 32, 32), depths=(1, 1, 1), attention=(False,) * 3,
                history=2,
                loc=1.0,  # more noise: else what moves is seen in the noisy frame, and not foreseen
            ),
            reward_end=RewardEndConfig(
                cond=32, channels=(8, 16, 32), depths=(1, 1, 1), attention=(False,) * 3, lstm=64
            ),
            whiten=True,
        ),
        agent=AgentConfig(
            channels=(16, 32),
            down=(True, True),
            lstm=64,
            entropy_weight=0.03,
            horizon=10,
            dream_length=10,
            reward_steps=10,
            start=4500,
            collect_until=4500,
            denoiser=OptimizerConfig(
                lr=2e-3, warmup=20, burst=700, updates_per_step=0, batch=16
            ),
            reward_end=OptimizerConfig(
                lr=2e-3, warmup=20, clip=100.0, burst=500, updates_per_step=0
            ),
            actor_critic=OptimizerConfig(
                lr=2e-3, warmup=20, clip=100.0, weight_decay=0.0, burst=400, updates_per_step=0,
                batch=16,
            ),
        ),
    ),
}  # fmt: skip

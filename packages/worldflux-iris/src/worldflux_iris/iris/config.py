"""Configuration of IRIS (2209.00588). Sources: eloialonso/iris, `trainer.yaml` or what is named."""

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
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]


class ModelConfig(Config):
    """The tokenizer (frames to tokens and back) and the transformer that predicts tokens."""

    patch: PositiveInt = 1
    """Side of the patches of pixels that the first convolution sees as channels; 1 as published."""
    channels: PositiveInt = 64
    """Channels at full resolution (tokenizer/default.yaml, `ch`)."""
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 1, 1, 1, 1)
    """Channels of each level as multiples of it; each level halves the picture (`ch_mult`)."""
    res_blocks: PositiveInt = 2
    """Residual blocks of a level of the encoder, one more in the decoder (`num_res_blocks`)."""
    attention: tuple[PositiveInt, ...] = (8, 16)
    """Sides of the feature maps that attention is applied to (`attn_resolutions`)."""
    groups: PositiveInt = 32
    """Groups of every GroupNorm (tokenizer/nets.py). Few on small maps: what a group has in common
    is lost."""
    latent_channels: PositiveInt = 512
    """Channels between the convolutions and the code-book's projections (`z_channels`)."""
    vocab: PositiveInt = 512
    """V, words of the code-book (`vocab_size`)."""
    code_dim: PositiveInt = 512
    """Numbers of a word of the code-book (`embed_dim`)."""
    perceptual: NonNegativeFloat = 1.0
    """Weight of the perceptual loss (LPIPS) beside the reconstruction's. It needs the extra
    worldflux-iris[lpips], whose weights are not part of this package; 0 trains without it."""
    reconstruction: Literal["l1", "l2"] = "l1"
    """Error of the reconstructed pixels: absolute, as published, or squared."""
    commitment: NonNegativeFloat = 1.0
    """Weight of moving latents to their words (tokenizer.py, `beta`)."""
    whiten: bool = False
    """Normalise each pixel by its own mean and deviation in the data, so that a small thing that
    moves counts; else to [-1, 1], as published."""
    quantize_after: NonNegativeInt = 0
    """Tokenizer updates before latents are quantised; then the code-book starts from a batch's
    latents (k-means). 0, as published: from the first update, from random words."""
    revive_after: PositiveInt | None = None
    """Updates without being chosen until a word is put where a latent is; None, as published:
    never."""
    max_blocks: Annotated[int, Field(ge=2)] = 20
    """T, steps that the transformer sees at most (world_model/default.yaml, `max_blocks`)."""
    layers: PositiveInt = 10
    """Blocks of the transformer (`num_layers`)."""
    heads: PositiveInt = 4
    """Heads of its attention (`num_heads`)."""
    dim: PositiveInt = 256
    """D, its width (`embed_dim`)."""
    dropout: Dropout = 0.1
    """Dropout of embeddings, attention and residuals (`embed_pdrop`, ...)."""
    predict_last: bool = False
    """Whether the frame an episode ends with is learnt too; the published data do not hold it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.channels % self.groups:
            raise ValueError(f"channels={self.channels} is not a multiple of groups={self.groups}")
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is not a multiple of heads={self.heads}")
        return self

    @property
    def downscale(self) -> int:
        """Pixels of a token's side."""
        return int(self.patch * 2 ** (len(self.multipliers) - 1))


class AgentConfig(Config):
    """Three phases of learning, and acting."""

    tokenizer_lr: PositiveFloat = 1e-4
    """Adam's learning rate for the tokenizer (`learning_rate`)."""
    model_lr: PositiveFloat = 1e-4
    """AdamW's learning rate for the transformer (`learning_rate`)."""
    actor_lr: PositiveFloat = 1e-4
    """Adam's learning rate for actor and critic (`learning_rate`)."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW's weight decay, of the matrices of linear layers alone (`weight_decay`)."""
    clip: PositiveFloat = 10.0
    """Largest gradient norm of each phase (`max_grad_norm`)."""
    tokenizer_batch: PositiveInt = 256
    """Frames in an update of the tokenizer (`batch_num_samples`)."""
    model_batch: PositiveInt = 64
    """Sequences in an update of the transformer (`batch_num_samples`)."""
    actor_batch: PositiveInt = 64
    """Starts of dreams in an update of the actor (`batch_num_samples`)."""
    tokenizer_start: NonNegativeInt = 1000
    """Steps before the tokenizer learns: 5 epochs of 200 (`start_after_epochs`)."""
    model_start: NonNegativeInt = 5000
    """Steps before the transformer learns: 25 epochs (`start_after_epochs`)."""
    actor_start: NonNegativeInt = 10_000
    """Steps before the actor learns: 50 epochs (`start_after_epochs`)."""
    updates_per_step: NonNegativeFloat = 1.0
    """Updates of each phase per step from its start on (`steps_per_epoch` / `num_steps`)."""
    tokenizer_updates: NonNegativeInt | None = None
    """Updates at once when the phase begins; None, as published: none."""
    model_updates: NonNegativeInt | None = None
    """The same for the transformer."""
    actor_updates: NonNegativeInt | None = None
    """The same for the actor."""
    collect_until: NonNegativeInt | None = 100_000
    """Steps until collection ends, while learning goes on: 500 of 600 epochs
    (`stop_after_epochs`)."""
    prefill: NonNegativeInt = 0
    """Steps with random actions; 0 as published, where the untrained actor acts."""
    sample_weights: tuple[NonNegativeFloat, ...] = (0.125, 0.125, 0.25, 0.5)
    """Chances of the quarters of all episodes, the oldest first (`sampling_weights`)."""
    burn_in: NonNegativeInt = 20
    """Frames that the actor sees before a dream starts (`burn_in`)."""
    horizon: Annotated[int, Field(ge=2)] = 20
    """H, frames of a dream, its start included (`imagine_horizon`)."""
    gamma: Fraction = 0.995
    """Discount (`gamma`)."""
    lam: Fraction = 0.95
    """Lambda of the returns (`lambda_`)."""
    entropy: NonNegativeFloat = 0.001
    """Weight of the policy's entropy (`entropy_weight`)."""
    mask_ended: bool = False
    """Whether steps after a dream's end are left out of the losses; published: they are not."""
    temperature: PositiveFloat = 1.0
    """Temperature of the policy while it collects (`collection.train.config`)."""
    eval_temperature: PositiveFloat = 0.5
    """Temperature of the policy while it is judged (`collection.test.config`)."""
    epsilon: Fraction = 0.01
    """Share of random actions while it collects (`collection.train.config`)."""
    conv_channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 32, 64, 64)
    """Channels of the actor's convolutions, each followed by a halving (actor_critic.py)."""
    lstm_dim: PositiveInt = 512
    """Size of the actor's memory (actor_critic.py)."""


class IRISConfig(Config):
    """IRIS: world model and agent."""

    model: ModelConfig = ModelConfig()
    """Tokenizer and transformer."""
    agent: AgentConfig = AgentConfig()
    """Learning and acting."""


TINY = IRISConfig(
    model=ModelConfig(
        patch=8,
        channels=32,
        multipliers=(1, 1),
        res_blocks=1,
        attention=(),
        groups=4,
        latent_channels=32,
        vocab=128,
        code_dim=16,
        perceptual=0.0,
        reconstruction="l2",
        whiten=True,
        quantize_after=300,
        revive_after=20,
        max_blocks=10,
        layers=2,
        heads=4,
        dim=64,
        dropout=0.0,
        predict_last=True,
    ),
    agent=AgentConfig(
        tokenizer_lr=2e-3,
        model_lr=2e-3,
        actor_lr=2e-3,
        tokenizer_batch=64,
        model_batch=48,
        actor_batch=32,
        tokenizer_start=18_000,
        model_start=18_000,
        actor_start=18_000,
        updates_per_step=0.0,
        tokenizer_updates=500,
        model_updates=1500,
        actor_updates=400,
        collect_until=18_000,
        prefill=18_000,
        sample_weights=(1.0,),
        burn_in=0,
        horizon=10,
        entropy=0.03,
        mask_ended=True,
        conv_channels=(8, 16, 16),
        lstm_dim=64,
    ),
)
"""For catch on a processor; its deviations from the paper are named above."""
PRESETS = {"base": IRISConfig(), "tiny": TINY}

"""Configuration of Delta-IRIS (2406.19320). Sources: vmicheli/delta-iris, `params/*.yaml`."""

from __future__ import annotations

from typing import Annotated, Self

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


class ConvConfig(Config):
    """A convolutional network: a residual block at each level, halvings behind some of them."""

    channels: PositiveInt = 64
    """Channels of the first level (`num_channels`)."""
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 1, 2, 2, 4)
    """Channels of each level as multiples of it (`mult`)."""
    down: tuple[bool, ...] = (True, False, True, True, False)
    """Whether a halving follows the level (`down`)."""
    latent: PositiveInt = 64
    """Channels that come out (`latent_dim`)."""
    groups: PositiveInt = 32
    """Groups of every GroupNorm (convnet.py)."""
    patch: PositiveInt = 1
    """Side of the patches of pixels that the first convolution sees as channels; 1: published."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.multipliers) != len(self.down):
            raise ValueError(f"{len(self.multipliers)} multipliers, but {len(self.down)} of down")
        if self.channels % self.groups:
            raise ValueError(f"channels={self.channels} is not a multiple of groups={self.groups}")
        return self

    @property
    def downscale(self) -> int:
        """Pixels of a feature's side."""
        return int(self.patch * 2 ** sum(self.down))


class ModelConfig(Config):
    """The tokenizer of changes between frames, and the transformer that predicts its tokens."""

    tokens: PositiveInt = 4
    """K, tokens of a change; a square (`num_tokens`)."""
    vocab: PositiveInt = 1024
    """V, words of the code-book (`codebook_size`)."""
    code_dim: PositiveInt = 64
    """Numbers of a word (`codebook_dim`)."""
    action_channels: PositiveInt = 4
    """Planes of the decoder's input that hold the action (`decoder_act_channels`)."""
    revive_updates: NonNegativeInt | None = 400
    """Updates during which words that are hardly used are revived; None: always; afterwards only
    where the code-book has collapsed (`max_codebook_updates_with_revival`)."""
    whiten: bool = False
    """Normalise each pixel by its own mean and deviation in the data, so that a small thing that
    moves counts; else they are in [0, 1], as published."""
    encoder: ConvConfig = ConvConfig()
    """Two frames and the action to latents (`encoder_config`)."""
    decoder: ConvConfig = ConvConfig()
    """Frame, action and latents to the next frame (`decoder_config`)."""
    frame: ConvConfig = ConvConfig(channels=32, latent=16)
    """The frame that the decoder starts from (`tokenizer.frame_cnn_config`)."""
    context: ConvConfig = ConvConfig(channels=32, latent=4)
    """The frame as one token of the transformer (`world_model.frame_cnn_config`)."""
    max_blocks: PositiveInt = 26
    """T, steps that the transformer sees at most (`sequence_length`)."""
    layers: PositiveInt = 3
    """Blocks of the transformer (`num_layers`)."""
    heads: PositiveInt = 4
    """Heads of its attention (`num_heads`)."""
    dim: PositiveInt = 256
    """D, its width (`embed_dim`)."""
    dropout: Dropout = 0.0
    """Dropout of embeddings, attention and residuals (`embed_pdrop`, ...)."""
    two_hot_rewards: bool = False
    """Whether rewards are symlog two-hot distributions; else their signs (`two_hot_rews`)."""
    scale_tokens: NonNegativeFloat = 0.1
    """Weight of the tokens' cross entropy (`latents_weight`)."""
    scale_reward: NonNegativeFloat = 1.0
    """Weight of the rewards' (`rewards_weight`)."""
    scale_end: NonNegativeFloat = 0.1
    """Weight of the ends' (`ends_weight`)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if round(self.tokens**0.5) ** 2 != self.tokens:
            raise ValueError(f"tokens={self.tokens} is no square: they are patches of a map")
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is not a multiple of heads={self.heads}")
        sides = [part.downscale for part in (self.encoder, self.frame, self.decoder)]
        if len(set(sides)) > 1:
            raise ValueError(
                "encoder, frame and decoder must come to maps of the same size, but a feature's "
                f"side is {sides} pixels"
            )
        return self


class AgentConfig(Config):
    """Three phases of learning, and acting."""

    lr: PositiveFloat = 1e-4
    """Learning rate of all three AdamWs (`learning_rate`)."""
    tokenizer_decay: NonNegativeFloat = 0.0
    """Weight decay of the tokenizer's linear layers (`weight_decay`)."""
    model_decay: NonNegativeFloat = 0.01
    """Weight decay of the transformer's linear layers (`weight_decay`)."""
    clip: PositiveFloat = 10.0
    """Largest gradient norm of each phase (`max_grad_norm`)."""
    tokenizer_batch: PositiveInt = 16
    """Sequences in an update of the tokenizer (`batch_num_samples`)."""
    tokenizer_length: Annotated[int, Field(ge=2)] = 21
    """Their frames (`sequence_length`)."""
    model_batch: PositiveInt = 64
    """Sequences in an update of the transformer (`batch_num_samples`)."""
    actor_batch: PositiveInt = 64
    """Starts of dreams in an update of the actor (`batch_num_samples`)."""
    tokenizer_start: NonNegativeInt = 2_800
    """Steps before the tokenizer learns: 2,000, then epochs of 200 (`start_after_epochs`)."""
    model_start: NonNegativeInt = 11_800
    """Steps before the transformer learns."""
    actor_start: NonNegativeInt = 16_800
    """Steps before the actor learns."""
    tokenizer_ratio: NonNegativeFloat = 1.0
    """Updates of the tokenizer per step from then on (`steps_per_epoch` / `num_steps`)."""
    model_ratio: NonNegativeFloat = 0.6
    """The same for the transformer."""
    actor_ratio: NonNegativeFloat = 1.0
    """The same for the actor."""
    tokenizer_updates: NonNegativeInt | None = 200
    """Updates of the tokenizer at once when it begins (`steps_first_epoch`, less an epoch's)."""
    model_updates: NonNegativeInt | None = None
    """The same for the transformer."""
    actor_updates: NonNegativeInt | None = None
    """The same for the actor."""
    priority: NonNegativeFloat = 1.0
    """How much episodes that were drawn less often are preferred (`priority_alpha`)."""
    collect_until: NonNegativeInt | None = 100_000
    """Steps until collection ends, while learning goes on (`stop_after_epochs`)."""
    prefill: NonNegativeInt = 0
    """Steps with random actions; 0 as published, where the untrained actor acts."""
    burn_in: NonNegativeInt = 5
    """Frames that transformer and actor see before a dream starts (`burn_in_length`)."""
    horizon: PositiveInt = 20
    """H, steps of a dream (`imagination_horizon`)."""
    gamma: Fraction = 0.995
    """Discount (`gamma`)."""
    lam: Fraction = 0.95
    """Lambda of the returns (`lambda_`)."""
    entropy: NonNegativeFloat = 0.002
    """Weight of the policy's entropy (`entropy_weight`)."""
    tau: Fraction = 0.995
    """Share that the target network keeps at an update (actor_critic.py, `target_tau`)."""
    two_hot_values: bool = False
    """Whether values are symlog two-hot distributions (`two_hot_rets`)."""
    epsilon: Fraction = 0.01
    """Share of random actions while it collects (`collection.train.config`)."""
    frame: ConvConfig = ConvConfig(channels=32, latent=16)
    """The actor's network (`frame_encoder_config`)."""
    lstm_dim: PositiveInt = 512
    """Size of the actor's memory (cnn_lstm_actor_critic.py)."""


class DeltaIRISConfig(Config):
    """Delta-IRIS: world model and agent."""

    model: ModelConfig = ModelConfig()
    """Tokenizer and transformer."""
    agent: AgentConfig = AgentConfig()
    """Learning and acting."""


CRAFTER = DeltaIRISConfig(
    model=ModelConfig(
        revive_updates=0,
        frame=ConvConfig(latent=8),
        context=ConvConfig(channels=32, latent=8),
        max_blocks=21,
        heads=8,
        dim=512,
        two_hot_rewards=True,
        scale_tokens=1.0,
        scale_end=1.0,
    ),
    agent=AgentConfig(
        tokenizer_decay=0.01,
        tokenizer_batch=32,
        model_batch=32,
        actor_batch=86,
        tokenizer_start=100_000,
        model_start=100_000,
        actor_start=100_000,
        tokenizer_ratio=0.05,
        model_ratio=0.05,
        actor_ratio=0.05,
        tokenizer_updates=5_000,
        model_updates=2_500,
        actor_updates=500,
        priority=5.0,
        collect_until=10_000_000,
        horizon=15,
        gamma=0.997,
        entropy=0.001,
        two_hot_values=True,
    ),
)
_SMALL = {"channels": 16, "multipliers": (1, 2), "down": (True, False), "groups": 4, "patch": 4}
TINY = DeltaIRISConfig(
    model=ModelConfig(
        vocab=128,
        code_dim=16,
        revive_updates=None,
        whiten=True,
        encoder=ConvConfig(latent=16, **_SMALL),  # type: ignore[arg-type]
        decoder=ConvConfig(**_SMALL),  # type: ignore[arg-type]
        frame=ConvConfig(latent=8, **_SMALL),  # type: ignore[arg-type]
        context=ConvConfig(latent=4, **_SMALL),  # type: ignore[arg-type]
        max_blocks=10,
        layers=2,
        dim=64,
    ),
    agent=AgentConfig(
        lr=2e-3,
        tokenizer_batch=32,
        tokenizer_length=10,
        model_batch=32,
        actor_batch=32,
        tokenizer_start=18_000,
        model_start=18_000,
        actor_start=18_000,
        tokenizer_ratio=0.0,
        model_ratio=0.0,
        actor_ratio=0.0,
        tokenizer_updates=400,
        model_updates=1_000,
        actor_updates=400,
        collect_until=18_000,
        prefill=18_000,
        burn_in=0,
        horizon=9,
        entropy=0.03,
        frame=ConvConfig(latent=8, **_SMALL),  # type: ignore[arg-type]
        lstm_dim=64,
    ),
)
"""Small networks on patches of 4 x 4 pixels that are normalised by the data, one phase after
another."""
PRESETS = {"atari": DeltaIRISConfig(), "crafter": CRAFTER, "tiny": TINY}

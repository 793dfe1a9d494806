"""Configuration of Genie (2402.15391). Sources: the paper, or p-doom/jasmine where it says so."""

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


class TransformerConfig(Config):
    """An ST-transformer: in each block attention in space, attention in time, one FFN."""

    dim: Annotated[int, Field(ge=2, multiple_of=2)] = 512
    """D, width of the residual stream."""
    ffn: PositiveInt = 2048
    """Units of a block's FFN."""
    blocks: PositiveInt = 4
    """Number of blocks."""
    heads: PositiveInt = 8
    """Attention heads."""
    head_dim: PositiveInt | None = None
    """Size of a head's queries and keys; None is dim / heads."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.head_dim is None and self.dim % self.heads:
            raise ValueError(
                f"dim={self.dim} is no multiple of heads={self.heads}: choose another number of "
                "heads, or give their size as head_dim"
            )
        return self

    @property
    def head_size(self) -> int:
        """Size of a head's queries, keys and values."""
        return self.head_dim or self.dim // self.heads


class QuantizerConfig(Config):
    """What turns features into one of finitely many codes."""

    kind: Literal["vq", "fsq"] = "vq"
    """`vq`: the nearest row of a learned code-book; `fsq`: each number rounded to a few levels
    (Mentzer et al. 2023), which needs no code-book."""
    codes: PositiveInt = 1024
    """V, rows of the code-book (vq)."""
    dim: PositiveInt = 32
    """L, size of a code (vq; with fsq it is the number of levels given)."""
    levels: tuple[Annotated[int, Field(ge=2)], ...] = (4, 4, 4, 4, 4)
    """Levels of each number (fsq): their product is the number of codes."""
    beta: NonNegativeFloat = 0.25
    """Weight of the commitment loss (vq; jasmine `vq_beta`)."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the similarities that training sets to 0 (vq; jasmine `codebook_dropout`)."""
    open: NonNegativeInt = 0
    """Updates at the start in which features pass as they are; then the code-book begins at the
    centres (k-means) of those of one batch (vq). Ours: with few updates a code-book that begins at
    random is hardly used."""
    reset: NonNegativeInt = 0
    """Updates in a row without being chosen after which a code becomes a copy of one in use (vq;
    jasmine `vq_reset_thresh`); 0: never."""

    @property
    def size(self) -> int:
        """V, the number of codes."""
        if self.kind == "vq":
            return self.codes
        count = 1
        for level in self.levels:
            count *= level
        return count

    @property
    def width(self) -> int:
        """L, the size of a code."""
        return self.dim if self.kind == "vq" else len(self.levels)


class TokenizerConfig(Config):
    """The video tokenizer: each patch of each frame becomes a token."""

    patch: PositiveInt = 4
    """Side of a patch in pixels."""
    encoder: TransformerConfig = TransformerConfig()
    """Patches to features."""
    decoder: TransformerConfig = TransformerConfig()
    """Codes to patches."""
    quantizer: QuantizerConfig = QuantizerConfig(dropout=0.01)
    """Features to tokens."""


class LatentActionConfig(Config):
    """The latent action model: what happened between a frame and the next, from pixels."""

    patch: PositiveInt = 16
    """Side of a patch in pixels."""
    encoder: TransformerConfig = TransformerConfig()
    """Frames up to the next one, to the action that led there."""
    decoder: TransformerConfig = TransformerConfig()
    """Frames up to this one and the action, to the next frame."""
    quantizer: QuantizerConfig = QuantizerConfig(codes=8, reset=50)
    """Actions to one of a few codes."""
    residual: bool = False
    """Whether the decoder predicts what changes, and not the whole next frame. Ours, for data
    that are short of time: nothing has to be copied."""


class DynamicsConfig(Config):
    """The dynamics: tokens and actions so far to the tokens of the next frame."""

    transformer: TransformerConfig = TransformerConfig(blocks=6)
    """Its transformer."""
    kind: Literal["maskgit", "causal"] = "maskgit"
    """`maskgit`: all tokens of a frame in a few rounds; `causal`: one token after another."""
    actions: Literal["prepend", "add"] = "prepend"
    """How the action gets in: as a token before those of its frame, or added to all of them."""
    mask_low: Fraction = 0.5
    """Least share of tokens that training hides."""
    mask_high: Fraction = 1.0
    """Largest share; each sequence draws its own, uniformly between the two."""
    steps: PositiveInt = 25
    """K, rounds in which a frame's tokens are committed."""
    schedule: Literal["cosine", "linear", "exponential"] = "cosine"
    """How many tokens are committed by which round; exponential as in tinyworlds (k = 5)."""
    temperature: PositiveFloat = 2.0
    """Temperature of the draws in the last round; it rises to this (causal: of every draw)."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.kind == "causal" and self.actions != "prepend":
            raise ValueError(
                "kind=causal reads a frame's first token where its action went in: it needs "
                "actions=prepend"
            )
        if self.mask_low > self.mask_high or self.mask_high == 0:
            raise ValueError(
                f"mask_low={self.mask_low} and mask_high={self.mask_high}: the first must not be "
                "above the second, and something has to be hidden"
            )
        return self


class ModelConfig(Config):
    """The world model."""

    frames: Annotated[int, Field(ge=2)] = 16
    """T, frames the model sees at once: of a training sequence and of the history it plays on."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Frames to tokens and back."""
    latent_action: LatentActionConfig = LatentActionConfig()
    """Which action led from a frame to the next."""
    dynamics: DynamicsConfig = DynamicsConfig()
    """What the action does."""
    action_map: tuple[NonNegativeInt, ...] = ()
    """The latent action of each of an environment's actions, as `fit_action_map` found them; empty:
    actions are latent ones."""
    action_labels: tuple[str, ...] = ()
    """The names of the environment's actions, where they have names."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        codes = self.latent_action.quantizer
        if codes.size == codes.width:
            raise ValueError(
                f"there are {codes.size} latent actions of size {codes.width}: a float vector "
                "could be a choice among them or a code. Change one of the two"
            )
        wrong = [code for code in self.action_map if code >= codes.size]
        if wrong:
            raise ValueError(
                f"action_map has {wrong[0]}, but there are {codes.size} latent actions"
            )
        if self.action_labels and len(self.action_labels) != len(self.action_map):
            raise ValueError(
                f"{len(self.action_labels)} action_labels for an action_map of "
                f"{len(self.action_map)}: give one for each, or none"
            )
        return self


class PhaseConfig(Config):
    """One of the three parts' training: AdamW, and a rate that warms up, stays and goes to 0."""

    steps: PositiveInt = 200_000
    """Updates."""
    batch: PositiveInt = 36
    """Sequences in an update."""
    lr: PositiveFloat = 3e-5
    """The learning rate between warm-up and decay."""
    warmup: NonNegativeInt = 5_000
    """Updates in which it rises from 0."""
    decay: NonNegativeInt = 20_000
    """Updates in which it goes back to 0, at the end."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.warmup + self.decay > self.steps:
            raise ValueError(
                f"warmup={self.warmup} and decay={self.decay} are more than steps={self.steps}"
            )
        return self


class AgentConfig(Config):
    """Learning."""

    tokenizer: PhaseConfig = PhaseConfig(
        steps=300_000, batch=48, lr=3e-4, warmup=10_000, decay=30_000
    )
    """The phase `tokenizer` (jasmine's numbers, as in the other two)."""
    latent_action: PhaseConfig = PhaseConfig()
    """The phase `latent_action`."""
    dynamics: PhaseConfig = PhaseConfig()
    """The phase `dynamics`."""
    together: bool = False
    """Whether the last two phases run side by side, as in the paper; else one after the other."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's decay of the gradient's average."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's decay of its square's (jasmine)."""
    weight_decay: NonNegativeFloat = 1e-4
    """AdamW's weight decay, on every parameter."""
    clip: PositiveFloat | None = None
    """Largest gradient norm; None: any."""
    horizon: PositiveInt = 4
    """The frame of a prediction that evaluation measures the effect of actions at (the paper)."""

    @property
    def clock(self) -> int:
        """Steps of the clock that all three phases take, one update each."""
        last = self.latent_action.steps, self.dynamics.steps
        return self.tokenizer.steps + (max(last) if self.together else sum(last))


class GenieConfig(Config):
    """Genie: the world model and how it learns."""

    model: ModelConfig = ModelConfig()
    """The world model."""
    agent: AgentConfig = AgentConfig()
    """Learning."""


def _parts(
    encoder: TransformerConfig, decoder: TransformerConfig, actions: TransformerConfig,
    dynamics: TransformerConfig, frames: int = 16,
) -> ModelConfig:  # fmt: skip
    return ModelConfig(
        frames=frames,
        tokenizer=TokenizerConfig(encoder=encoder, decoder=decoder),
        latent_action=LatentActionConfig(encoder=actions, decoder=actions),
        dynamics=DynamicsConfig(transformer=dynamics),
    )


def _net(dim: int, blocks: int, heads: int = 8, head_dim: int | None = None) -> TransformerConfig:
    return TransformerConfig(dim=dim, ffn=4 * dim, blocks=blocks, heads=heads, head_dim=head_dim)


def _published(steps: int, lr: float, batch: int, warmup: int) -> AgentConfig:
    """One rate and batch for all three, as the project's first edition had them."""
    one = PhaseConfig(steps=steps, batch=batch, lr=lr, warmup=warmup, decay=steps // 10)
    return AgentConfig(tokenizer=one, latent_action=one, dynamics=one, together=True, clip=1.0)


_TINY = TransformerConfig(dim=64, ffn=256, blocks=2, heads=4)

PRESETS = {
    "jasmine": GenieConfig(
        model=ModelConfig(
            tokenizer=TokenizerConfig(patch=16),
            latent_action=LatentActionConfig(quantizer=QuantizerConfig(codes=6, reset=50)),
        ),
    ),
    "tiny": GenieConfig(
        model=ModelConfig(
            frames=8,
            tokenizer=TokenizerConfig(
                patch=8, encoder=_TINY, decoder=_TINY, quantizer=QuantizerConfig(kind="fsq")
            ),
            latent_action=LatentActionConfig(
                encoder=_TINY,
                decoder=_TINY,
                residual=True,
                quantizer=QuantizerConfig(codes=6, dim=8, open=150),
            ),
            dynamics=DynamicsConfig(transformer=_TINY, steps=8, temperature=1.0),
        ),
        agent=AgentConfig(
            tokenizer=PhaseConfig(steps=600, batch=8, lr=2e-3, warmup=50, decay=200),
            latent_action=PhaseConfig(steps=600, batch=16, lr=1e-3, warmup=50, decay=200),
            dynamics=PhaseConfig(steps=600, batch=8, lr=1e-3, warmup=50, decay=200),
        ),
    ),
    "base": GenieConfig(
        model=_parts(_net(256, 4), _net(512, 8), _net(256, 4), _net(512, 8), frames=8),
        agent=_published(steps=125_000, lr=3e-5, batch=4, warmup=5_000),
    ),
    "small": GenieConfig(
        model=_parts(_net(256, 4), _net(512, 8), _net(512, 8), _net(512, 8)),
        agent=_published(steps=50_000, lr=1e-4, batch=2, warmup=1_000),
    ),
    "large": GenieConfig(
        model=_parts(_net(512, 12, 16), _net(1024, 20, 16), _net(1024, 20, 16),
                     _net(5120, 48, 36, head_dim=128)),
        agent=_published(steps=125_000, lr=3e-5, batch=4, warmup=5_000),
    ),
    "11b": GenieConfig(
        model=_parts(_net(512, 6), _net(1024, 10, 16), _net(1024, 10, 16),
                     _net(5120, 24, 36, head_dim=128)),
        agent=_published(steps=125_000, lr=3e-5, batch=512, warmup=5_000),
    ),
}  # fmt: skip

"""Configuration of DreamerV3. Sources: `configs.yaml` of danijar/dreamerv3 unless said."""

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

Probability = Annotated[float, Field(ge=0, le=1)]


class ModelConfig(Config):
    """The world model: sizes, distributions, and scales of its loss terms."""

    deter: PositiveInt = 8192
    """D, units of the deterministic recurrent state (`rssm.deter`)."""
    hidden: PositiveInt = 1024
    """Units of the layers inside the RSSM (`rssm.hidden`)."""
    stoch: PositiveInt = 32
    """S, number of categorical latents (`rssm.stoch`)."""
    classes: PositiveInt = 64
    """K, classes of each latent (`rssm.classes`)."""
    blocks: PositiveInt = 8
    """Blocks of the recurrent core, each a slice of the deterministic state (`rssm.blocks`)."""
    units: PositiveInt = 1024
    """Units of the vector encoder and decoder and of every head (`.*units`)."""
    depth: PositiveInt = 64
    """Base number of image channels (`enc.depth`, `dec.depth`)."""
    mults: tuple[PositiveInt, ...] = (2, 3, 4, 4)
    """Channel multiples of the image stages; each stage halves the resolution (`enc.mults`)."""
    kernel: PositiveInt = 5
    """Side of the image kernels, in pixels, odd (`enc.kernel`)."""
    decoder_blocks: PositiveInt = 8
    """Blocks of the decoder's first layer from the deterministic state (`dec.bspace`)."""
    layers: PositiveInt = 3
    """Layers of the vector encoder and decoder (`enc.layers`, `dec.layers`)."""
    image_layers: PositiveInt = 2
    """Layers of the prior (`rssm.imglayers`)."""
    obs_layers: PositiveInt = 1
    """Layers of the posterior (`rssm.obslayers`)."""
    dyn_layers: PositiveInt = 1
    """Block layers before the gates of the core (`rssm.dynlayers`)."""
    reward_layers: PositiveInt = 1
    """Layers of the reward head (`rewhead.layers`)."""
    continue_layers: PositiveInt = 1
    """Layers of the continue head (`conhead.layers`)."""
    norm_eps: PositiveFloat = 1e-4
    """Added to the mean square in RMSNorm (`nets.py:Norm`)."""
    unimix: Probability = 0.01
    """Share of the uniform distribution in every latent's distribution (`rssm.unimix`)."""
    free_nats: NonNegativeFloat = 1.0
    """KL per time step, in nats, below which there is no gradient (`rssm.free_nats`)."""
    bins: Annotated[int, Field(ge=3)] = 255
    """Bins of reward and value distributions (`rewhead.bins`)."""
    horizon: Annotated[float, Field(gt=1)] = 333.0
    """Steps; the discount is 1 - 1/horizon (`horizon`)."""
    contdisc: bool = True
    """Whether the continue target carries the discount; imagination then uses none (`contdisc`)."""
    scale_dyn: NonNegativeFloat = 1.0
    """Weight of KL(sg(post) || prior) (`loss_scales.dyn`)."""
    scale_rep: NonNegativeFloat = 0.1
    """Weight of KL(post || sg(prior)) (`loss_scales.rep`)."""
    scale_rec: NonNegativeFloat = 1.0
    """Weight of each observation's reconstruction (`loss_scales.rec`)."""
    representation: str = "reconstruction"
    """What latents are learned by: drawing the observation, or, without a decoder, agreeing with
    its embedding by redundancy reduction (`r2`, R2-Dreamer) or contrast (`contrastive`, InfoNCE);
    names of `representation.kinds.KINDS`."""
    scale_r2: NonNegativeFloat = 0.05
    """Weight of the redundancy-reduction loss (NM512/r2dreamer, `loss_scales.barlow`)."""
    r2_off_diagonal: NonNegativeFloat = 5e-4
    """Weight of its off-diagonal part (NM512/r2dreamer, `r2dreamer.lambd`)."""
    scale_contrastive: NonNegativeFloat = 1.0
    """Weight of the contrastive loss (NM512/r2dreamer, `loss_scales.infonce`)."""
    scale_rew: NonNegativeFloat = 1.0
    """Weight of the reward loss (`loss_scales.rew`)."""
    scale_con: NonNegativeFloat = 1.0
    """Weight of the continue loss (`loss_scales.con`)."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        for name in ("blocks", "decoder_blocks"):
            if self.deter % getattr(self, name):
                raise ValueError(f"deter={self.deter} is not a multiple of {name}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} is even: 'same' padding needs an odd kernel")
        return self


class AgentConfig(Config):
    """Behaviour learning in imagination, the optimiser, and how to be trained."""

    imag_length: PositiveInt = 15
    """H, imagined steps; the imagined sequence has H+1 states (`imag_length`)."""
    imag_last: NonNegativeInt = 0
    """Imagine from the last so many steps of each sequence only; 0 is all (`imag_last`)."""
    policy_layers: PositiveInt = 3
    """Layers of the actor (`policy.layers`)."""
    value_layers: PositiveInt = 3
    """Layers of the critic (`value.layers`)."""
    minstd: PositiveFloat = 0.1
    """Least standard deviation of continuous actions (`policy.minstd`)."""
    maxstd: PositiveFloat = 1.0
    """Largest standard deviation of continuous actions (`policy.maxstd`)."""
    policy_unimix: Probability = 0.0
    """Share of uniform actions in a discrete actor. Official config says 0.01, but its categorical
    head ignores it, so 0 is what is shipped (`heads.py:categorical`)."""
    eval_policy: Literal["sample", "mode"] = "sample"
    """What acting with mode "eval" does. The official agent samples in evaluation too."""
    lam: Probability = 0.95
    """Decay of the lambda-return (`imag_loss.lam`)."""
    actent: NonNegativeFloat = 3e-4
    """Weight of the actor's entropy (`imag_loss.actent`)."""
    slowreg: NonNegativeFloat = 1.0
    """Weight of the critic's cross entropy to the slow critic (`imag_loss.slowreg`)."""
    slow_target: bool = False
    """Whether returns bootstrap from the slow critic (`imag_loss.slowtar`)."""
    slow_rate: Probability = 0.02
    """Share of the critic that enters the slow critic after every update (`slowvalue.rate`)."""
    retnorm_rate: Probability = 0.01
    """Rate of the moving percentiles of returns (`retnorm.rate`)."""
    retnorm_limit: PositiveFloat = 1.0
    """Least scale that advantages are divided by (`retnorm.limit`)."""
    retnorm_low: Annotated[float, Field(ge=0, le=100)] = 5.0
    """Lower percentile of returns (`retnorm.perclo`)."""
    retnorm_high: Annotated[float, Field(ge=0, le=100)] = 95.0
    """Upper percentile of returns (`retnorm.perchi`)."""
    scale_policy: NonNegativeFloat = 1.0
    """Weight of the actor loss (`loss_scales.policy`)."""
    scale_value: NonNegativeFloat = 1.0
    """Weight of the critic loss in imagination (`loss_scales.value`)."""
    scale_repval: NonNegativeFloat = 0.3
    """Weight of the critic loss on replayed steps (`loss_scales.repval`)."""
    lr: NonNegativeFloat = 4e-5
    """Learning rate (`opt.lr`)."""
    warmup: NonNegativeInt = 1000
    """Updates over which the learning rate rises linearly from 0 (`opt.warmup`)."""
    agc: NonNegativeFloat = 0.3
    """Largest gradient norm relative to the parameter's norm, per tensor; 0 is off (`opt.agc`)."""
    pmin: PositiveFloat = 1e-3
    """Least parameter norm for that ratio (`opt.py:clip_by_agc`)."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the momentum (`opt.beta1`)."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the squared gradients (`opt.beta2`)."""
    eps: NonNegativeFloat = 1e-20
    """Added to the root of the squared gradients (`opt.eps`)."""
    train_ratio: PositiveFloat = 32.0
    """Replayed steps per agent step (`run.train_ratio`)."""
    batch: PositiveInt = 16
    """B, sequences per update (`batch_size`)."""
    length: Annotated[int, Field(ge=2)] = 64
    """T, steps per sequence, without context (`batch_length`)."""
    context: NonNegativeInt = 1
    """Steps before each sequence whose stored latents start it (`replay_context`)."""
    prefill: NonNegativeInt = 0
    """Random agent steps before learning; official training starts when a batch is there."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.maxstd < self.minstd:
            raise ValueError(f"maxstd={self.maxstd} is below minstd={self.minstd}")
        if self.retnorm_high < self.retnorm_low:
            raise ValueError(
                f"retnorm_high={self.retnorm_high} is below retnorm_low={self.retnorm_low}"
            )
        if self.imag_last == 1:
            raise ValueError(
                "imag_last=1 leaves the critic no pair of replayed steps: use 0 (all) or at least 2"
            )
        if self.context > self.length:
            raise ValueError(
                f"context={self.context} is more than length={self.length}: a sequence is learned "
                "from, its context only starts it"
            )
        return self


class DreamerV3Config(Config):
    """DreamerV3: the rooms `model.*` and `agent.*`."""

    model: ModelConfig = ModelConfig()
    """The world model."""
    agent: AgentConfig = AgentConfig()
    """Behaviour learning, optimiser and training plan."""

    @model_validator(mode="after")
    def _chooses(self) -> Self:
        if self.model.classes < 2:
            raise ValueError(
                f"model.classes={self.model.classes}: a categorical latent needs at least 2"
            )
        return self


def _size(deter: int, hidden: int, classes: int, depth: int, units: int) -> DreamerV3Config:
    return DreamerV3Config(
        model=ModelConfig(deter=deter, hidden=hidden, classes=classes, depth=depth, units=units)
    )


PRESETS = {
    "size1m": _size(512, 64, 4, 4, 64),
    "size12m": _size(2048, 256, 16, 16, 256),
    "size25m": _size(3072, 384, 24, 24, 384),
    "size50m": _size(4096, 512, 32, 32, 512),
    "size100m": _size(6144, 768, 48, 48, 768),
    "size200m": _size(8192, 1024, 64, 64, 1024),
    "size400m": _size(12288, 1536, 96, 96, 1536),
}

"""Configuration of DiT (2212.09748). Sources: facebookresearch/DiT, or named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from worldflux.config import Config
from worldflux.errors import ContractError
from worldflux.nn.diffusion.spacing import kept_steps

if TYPE_CHECKING:
    from worldflux.columns import Columns

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
LABEL = "extra.label"


class TransformerConfig(Config):
    """The transformer (`models.py`)."""

    patch: PositiveInt = 2
    """Side of the patches that an image is cut into (`patch_size`)."""
    width: PositiveInt = 384
    """D, size of a token (`hidden_size`)."""
    depth: PositiveInt = 12
    """Blocks (`depth`)."""
    heads: PositiveInt = 6
    """Attention heads (`num_heads`)."""
    expand: PositiveFloat = 4.0
    """Width of a block's MLP, in tokens (`mlp_ratio`)."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"width={self.width} must be a multiple of heads={self.heads}, and of 4 for the "
                "positions"
            )
        return self


class ModelConfig(TransformerConfig):
    """The model: transformer, labels, the noise it learns from and how it samples."""

    classes: PositiveInt | None = None
    """Kinds of images; None is as many as the data has labels, and no labels without data."""
    class_dropout: Fraction = 0.1
    """Chance that training leaves a label out, for guidance (`class_dropout_prob`)."""
    learn_variance: bool = True
    """Whether the variance of a step is learnt too (`learn_sigma`)."""
    steps: PositiveInt = 1000
    """T, steps from an image to noise (`diffusion_steps`)."""
    spacing: str = "250"
    """Which of them sampling takes, as in `worldflux.nn.diffusion.spacing` (`sample.py`)."""
    guidance: PositiveFloat = 4.0
    """How far samples are pushed towards their label; 1 is not at all (`cfg_scale`)."""
    guided_channels: PositiveInt = 3
    """Channels that are pushed: the first three, of four too (`forward_with_cfg`)."""
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    """DDPM's random steps, or DDIM's, which keep the noise that is found."""
    eta: Fraction = 0.0
    """How random DDIM's steps are; 1 is as random as DDPM's (`ddim_sample`)."""
    clip: bool = False
    """Whether every step's image is kept within [-1, 1] (`clip_denoised`)."""

    @model_validator(mode="after")
    def _spaced(self) -> Self:
        try:
            kept_steps(self.steps, self.spacing)
        except (ContractError, ValueError) as error:
            raise ValueError(f"spacing={self.spacing!r}: {error}") from error
        return self


class AgentConfig(Config):
    """Training (`train.py`)."""

    batch: PositiveInt = 256
    """B, images in an update (`global_batch_size`)."""
    lr: PositiveFloat = 1e-4
    """AdamW's learning rate (`train.py`)."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decay (`train.py`)."""
    clip: PositiveFloat | None = None
    """Largest gradient norm; None is any."""
    average: Fraction = 0.9999
    """Share of the old weights in the average that samples are drawn from (`update_ema`)."""
    samples: PositiveInt = 8
    """Samples of every label in an evaluation."""


class DiTConfig(Config):
    """DiT: model and training."""

    model: ModelConfig = ModelConfig()
    """The model."""
    agent: AgentConfig = AgentConfig()
    """Training."""

    def completed(self, columns: Columns, episode_limit: int | None = None) -> Self:
        """With as many classes as the data has labels, if none are given."""
        if self.model.classes is not None or LABEL not in columns:
            return self
        return self.with_(**{"model.classes": columns[LABEL].n})


def _sized(depth: int, width: int, heads: int) -> DiTConfig:
    return DiTConfig(model=ModelConfig(depth=depth, width=width, heads=heads))


PRESETS = {
    "s-2": _sized(12, 384, 6),
    "b-2": _sized(12, 768, 12),
    "l-2": _sized(24, 1024, 16),
    "xl-2": _sized(28, 1152, 16),
    "cifar10": DiTConfig(  # document 004's `DiTConfig`
        model=ModelConfig(patch=4, width=384, depth=6, heads=6, learn_variance=False),
        agent=AgentConfig(batch=128, lr=2e-4, clip=1.0, average=0.999),
    ),
    "tiny": DiTConfig(  # for images of 32 x 32, on a CPU
        model=ModelConfig(
            patch=4, width=128, depth=4, heads=4, learn_variance=False, spacing="25",
            guidance=2.0, sampler="ddim", clip=True,
        ),
        agent=AgentConfig(batch=64, lr=1e-3, clip=1.0, average=0.99),
    ),
}  # fmt: skip

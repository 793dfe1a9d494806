"""Configuration of I-JEPA (2301.08243). Sources: facebookresearch/ijepa, `configs/` or named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from worldflux.config import Config
from worldflux_jepa.vit_config import VIT, ViTConfig

if TYPE_CHECKING:
    from worldflux.columns import Columns

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Range = tuple[PositiveFloat, PositiveFloat]


class PredictorConfig(Config):
    """What guesses hidden patches from those that were kept."""

    width: PositiveInt = 384
    """Features of a token (`pred_emb_dim`)."""
    depth: PositiveInt = 12
    """Blocks (`pred_depth`)."""
    heads: PositiveInt | None = None
    """Attention heads; None: as many as the encoder has (`vit_predictor`)."""


class MaskConfig(Config):
    """Which patches are kept and which are guessed (`src/masks/`)."""

    kind: Literal["blocks", "random"] = "blocks"
    """Rectangles (`multiblock.py`), or single patches wherever they are (`random.py`)."""
    targets: PositiveInt = 4
    """Blocks that are guessed (`num_pred_masks`)."""
    contexts: PositiveInt = 1
    """Blocks that are kept, each by itself (`num_enc_masks`)."""
    target_scale: Range = (0.15, 0.2)
    """Least and largest share of the image in a target (`pred_mask_scale`)."""
    context_scale: Range = (0.85, 1.0)
    """The same of a context, before the targets are cut out (`enc_mask_scale`)."""
    aspect: Range = (0.75, 1.5)
    """Least and largest height over width of a target (`aspect_ratio`)."""
    min_keep: NonNegativeInt = 10
    """Every block has more patches than this (`min_keep`)."""
    overlap: bool = False
    """Whether targets may lie in the context (`allow_overlap`)."""
    hidden: Range = (0.4, 0.6)
    """Kind "random": least and largest share that is guessed (`ratio`)."""


class ModelConfig(Config):
    """Encoder, predictor and what is hidden."""

    encoder: ViTConfig = VIT["small"]
    """The encoder; its slow copy is the target."""
    predictor: PredictorConfig = PredictorConfig()
    """Used in training alone."""
    mask: MaskConfig = MaskConfig()
    """What is hidden."""


class LearnerConfig(Config):
    """Training (`configs/in1k_vith14_ep300.yaml`)."""

    batch: PositiveInt = 2048
    """Images in an update (`batch_size` of all GPUs)."""
    start_lr: NonNegativeFloat = 2e-4
    """Learning rate at the start (`start_lr`)."""
    lr: PositiveFloat = 1e-3
    """Learning rate after the warm-up (`lr`)."""
    final_lr: NonNegativeFloat = 1e-6
    """Learning rate at the end (`final_lr`)."""
    warmup: Share = 40 / 300
    """Share of the run that warms up (`warmup` of `epochs`)."""
    weight_decay: NonNegativeFloat = 0.04
    """At the start (`weight_decay`)."""
    final_weight_decay: PositiveFloat = 0.4
    """At the end (`final_weight_decay`)."""
    momentum: tuple[Share, Share] = (0.996, 1.0)
    """Of the target's average, at the start and at the end (`ema`)."""
    stretch: Annotated[float, Field(ge=1.0)] = 1.25
    """Schedules are those of a run so many times longer (`ipe_scale`)."""
    classes: PositiveInt | None = None
    """Values of `extra.label`, by which the probes judge; None: as many as the data has."""


class IJEPAConfig(Config):
    """I-JEPA: model and training."""

    model: ModelConfig = ModelConfig()
    """Encoder, predictor, masks."""
    agent: LearnerConfig = LearnerConfig()
    """Training and evaluation."""

    def completed(self, columns: Columns, episode_limit: int | None = None) -> Self:
        """With the number of classes that the data has."""
        label = columns.get("extra.label")
        if self.agent.classes is not None or label is None or not isinstance(label.n, int):
            return self
        return self.with_(**{"agent.classes": label.n})


def _preset(name: str, patch: int | None = None) -> IJEPAConfig:
    encoder = VIT[name].with_(patch=patch)
    return IJEPAConfig(model=ModelConfig(encoder=encoder))


PRESETS = {
    # Ours: learns from 32 x 32 images on a CPU. The target is the random start at first and follows
    # ever faster: in a few hundred updates the published momentum, which rises, ends in a collapse.
    "mini": IJEPAConfig(
        model=ModelConfig(
            encoder=VIT["mini"].with_(grid=4),
            predictor=PredictorConfig(width=48, depth=2),
            mask=MaskConfig(min_keep=1),
        ),
        agent=LearnerConfig(
            batch=64, lr=3e-3, warmup=0.05, momentum=(1.0, 0.8), final_weight_decay=0.04
        ),
    ),
    "tiny": _preset("tiny"),
    "small": _preset("small"),
    "base": _preset("base"),
    "large": _preset("large"),
    "huge": _preset("huge", 14),
    "giant": _preset("giant", 16),
}

"""Configuration of V-JEPA (2404.08471). Sources: facebookresearch/jepa, `configs/pretrain/`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from worldflux.config import Config
from worldflux_jepa.ijepa.config import PredictorConfig
from worldflux_jepa.vit_config import VIT, ViTConfig

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Range = tuple[PositiveFloat, PositiveFloat]


class ClipMaskConfig(Config):
    """One kind of masks: the union of some blocks is guessed, the rest of the clip is seen."""

    blocks: PositiveInt
    """Blocks of each clip (`num_blocks`)."""
    scale: Range
    """Least and largest share of a frame in a block (`spatial_scale`)."""
    time: Range = (1.0, 1.0)
    """Least and largest share of the clip's length in a block (`temporal_scale`)."""
    aspect: Range = (0.75, 1.5)
    """Least and largest height over width of a block (`aspect_ratio`)."""


class ModelConfig(Config):
    """Encoder, predictor and what is hidden."""

    encoder: ViTConfig = VIT["large"]
    """The encoder; its slow copy is the target."""
    predictor: PredictorConfig = PredictorConfig()
    """Used in training alone."""
    frames: PositiveInt = 16
    """Frames of a clip (`num_frames`)."""
    tubelet: PositiveInt = 2
    """Frames of a token (`tubelet_size`)."""
    stride: PositiveInt = 4
    """Frames of the video between two of a clip (`sampling_rate`)."""
    masks: tuple[ClipMaskConfig, ...] = (
        ClipMaskConfig(blocks=8, scale=(0.15, 0.15)),
        ClipMaskConfig(blocks=2, scale=(0.7, 0.7)),
    )
    """Kinds of masks; every clip is used with each of them."""
    exponent: PositiveFloat = 1.0
    """The loss is mean |error| ** exponent / exponent (`loss_exp`)."""


class LearnerConfig(Config):
    """Training (`vitl16.yaml`)."""

    batch: PositiveInt = 2400
    """Clips in an update (`batch_size` of all GPUs)."""
    start_lr: NonNegativeFloat = 2e-4
    """Learning rate at the start (`start_lr`)."""
    lr: PositiveFloat = 6.25e-4
    """Learning rate after the warm-up (`lr`)."""
    final_lr: NonNegativeFloat = 1e-6
    """Learning rate at the end (`final_lr`)."""
    warmup: Share = 40 / 300
    """Share of the run that warms up (`warmup` of `epochs`)."""
    weight_decay: NonNegativeFloat = 0.04
    """At the start (`weight_decay`)."""
    final_weight_decay: PositiveFloat = 0.4
    """At the end (`final_weight_decay`)."""
    momentum: tuple[Share, Share] = (0.998, 1.0)
    """Of the target's average, at the start and at the end (`ema`)."""
    stretch: Annotated[float, Field(ge=1.0)] = 1.25
    """Schedules are those of a run so many times longer (`ipe_scale`)."""
    clip: PositiveFloat = 10.0
    """Largest norm of the gradient (`clip_grad`)."""


class VJEPAConfig(Config):
    """V-JEPA: model and training."""

    model: ModelConfig = ModelConfig()
    """Encoder, predictor, masks."""
    agent: LearnerConfig = LearnerConfig()
    """Training."""


PRESETS = {
    "tiny": VJEPAConfig(  # ours: trains on a CPU
        model=ModelConfig(
            encoder=ViTConfig(width=96, depth=4, heads=3),
            predictor=PredictorConfig(width=48, depth=2),
            frames=4,
            stride=1,
            masks=(
                ClipMaskConfig(blocks=4, scale=(0.15, 0.15)),
                ClipMaskConfig(blocks=2, scale=(0.4, 0.4)),
            ),
        ),
        agent=LearnerConfig(batch=16, momentum=(0.99, 1.0), lr=1e-3),
    ),
    "large": VJEPAConfig(),
    "huge": VJEPAConfig(model=ModelConfig(encoder=VIT["huge"])),
    "giant": VJEPAConfig(  # the sizes of V-JEPA 2's ViT-g, with this family's position table
        model=ModelConfig(encoder=VIT["giant"].with_(heads=22), predictor=PredictorConfig(heads=12))
    ),
}

"""Configuration of JEPA world models on image tokens.

Sources: V-JEPA 2-AC (2506.09985; facebookresearch/vjepa2) or named, DINO-WM (2411.04983).
"""

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
from worldflux.planning.config import (
    AnyPlannerConfig,
    CEMConfig,
    PlanningAgentConfig,
    ScoreConfig,
)
from worldflux_jepa.vit_config import VIT, ViTConfig

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class PredictorConfig(Config):
    """The transformer over [action, state, patches] of a few frames (`ac_predictor.py`)."""

    width: PositiveInt = 1024
    """Features of a token (`predictor_embed_dim`)."""
    depth: PositiveInt = 24
    """Blocks (`depth`)."""
    heads: PositiveInt = 16
    """Attention heads (`num_heads`)."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden units of a block's MLP over the width (`mlp_ratio`)."""
    conditioning: Literal["tokens", "adaln"] = "tokens"
    """Actions are tokens of their frame (V-JEPA 2-AC), or shift, scale and gate the blocks."""
    extrinsics: NonNegativeInt = 0
    """Numbers of a camera pose for which there are weights; 0: none."""
    use_extrinsics: bool = False
    """Whether a camera pose is a token of its frame (`use_extrinsics`)."""
    rope_size: PositiveInt | None = None
    """Rows that positions are scaled to; None: the grid's own (`grid_size`)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")
        if self.use_extrinsics and not self.extrinsics:
            raise ValueError("use_extrinsics needs the number of a pose's values: extrinsics")
        return self


class ConvConfig(Config):
    """A small encoder of whole images: convolutions, and tokens projected from them (ours)."""

    channels: tuple[PositiveInt, ...] = (16, 32, 64)
    """Channels of the convolutions, each of which halves the image."""
    hidden: PositiveInt = 128
    """Hidden units of the projector, which has batch norm."""
    tokens: PositiveInt = 4
    """N, tokens of an image."""
    width: PositiveInt = 8
    """D, features of a token."""


class ModelConfig(Config):
    """Encoder, predictor and losses."""

    encoder: ViTConfig = VIT["giant"]
    """The default encoder's sizes."""
    conv: ConvConfig | None = None
    """Convolutions in place of that transformer; they are trained."""
    frozen: bool = True
    """Whether the encoder stays as it is; else it is trained with the predictor."""
    normalise: bool = True
    """Whether tokens are normalised over their features (`normalize_reps`)."""
    predictor: PredictorConfig = PredictorConfig()
    """What predicts the next tokens."""
    proprio: str | None = None
    """Key of the vector observation that tells the body's state, a token of each frame; "auto" is
    the only vector there is, or none."""
    proprio_next: Literal["add", "predict"] = "add"
    """The next state: this one and the actions' sum (V-JEPA 2-AC), or predicted."""
    window: PositiveInt = 8
    """W, frames that a prediction sees at most (`num_frames` less one)."""
    stride: PositiveInt = 1
    """k, steps of the environment that a prediction spans (`frameskip`)."""
    rollout: NonNegativeInt = 2
    """Frames predicted from own predictions for the second loss (`auto_steps`); 0: none."""
    exponent: PositiveFloat = 1.0
    """The loss is mean |error| ** exponent / exponent (`loss_exp`)."""
    sigreg: NonNegativeFloat = 0.0
    """Weight of SIGReg on a trained encoder's tokens, which keeps them apart."""
    directions: PositiveInt = 256
    """Random directions along which SIGReg looks."""
    cost: Literal["last", "sum"] = "last"
    """A plan's cost: the distance to the goal at its end, or summed over its steps."""
    distance: Literal["squared", "l1", "cosine"] = "l1"
    """Distance of tokens to the goal's."""
    proprio_weight: NonNegativeFloat = 0.0
    """Weight of the body's distance to the goal's in the cost, where a goal tells of it."""
    rows: PositiveInt = 1024
    """Candidates scored at once; more are scored in pieces."""

    @model_validator(mode="after")
    def _kept_apart(self) -> Self:
        if not self.frozen and not self.sigreg:
            raise ValueError(
                "a trained encoder (frozen=false) needs sigreg > 0: nothing else keeps its tokens "
                "from becoming all alike"
            )
        if self.conv is not None and self.frozen:
            raise ValueError("convolutions of ours have learnt nothing yet: set frozen=false")
        if self.normalise and self.sigreg:
            raise ValueError("sigreg wants tokens of its own scale: set normalise=false")
        return self


class JEPAWMAgentConfig(PlanningAgentConfig):
    """Training and planning."""

    planner: AnyPlannerConfig = CEMConfig(
        horizon=2, candidates=400, elites=10, iterations=10, momentum=0.15, init_std=0.05,
        max_std=0.05, execute=1, warm_start=False, score=ScoreConfig(goal_key="rep"),
    )  # fmt: skip
    """How to plan (V-JEPA 2-AC, appendix)."""
    lr: PositiveFloat = 4.25e-4
    """AdamW's learning rate after the warm-up (`lr`)."""
    start_lr: NonNegativeFloat = 7.5e-5
    """Learning rate at the start (`start_lr`)."""
    weight_decay: NonNegativeFloat = 0.04
    """AdamW's weight decay, none on vectors (`weight_decay`)."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    warmup: Share = 0.05
    """Share of the run that warms up (`warmup` of `epochs`)."""
    batch: PositiveInt = 256
    """Sequences in an update (`batch_size` of all GPUs)."""
    length: Annotated[int, Field(ge=2)] = 8
    """Frames of a sequence (`num_frames`)."""


class JEPAWMConfig(Config):
    """A JEPA world model: model and agent."""

    model: ModelConfig = ModelConfig()
    """The world model."""
    agent: JEPAWMAgentConfig = JEPAWMAgentConfig()
    """Training and planning."""


def _blocks(horizon: int, candidates: int, elites: int, iterations: int, execute: int) -> CEMConfig:
    return CEMConfig(
        horizon=horizon, candidates=candidates, elites=elites, iterations=iterations,
        execute=execute, warm_start=execute < horizon, include_mean=True,
        score=ScoreConfig(goal_key="rep"),
    )  # fmt: skip


PRESETS = {
    "small": JEPAWMConfig(  # ours: learns two-room from 32 x 32 images on a CPU
        model=ModelConfig(
            conv=ConvConfig(),
            frozen=False,
            normalise=False,
            predictor=PredictorConfig(width=64, depth=2, heads=2, mlp_ratio=2.0,
                                      conditioning="adaln"),
            window=3,
            stride=5,
            rollout=2,
            exponent=2.0,
            sigreg=0.09,
            directions=64,
            distance="squared",
            cost="sum",
        ),
        agent=JEPAWMAgentConfig(
            planner=_blocks(5, 64, 8, 4, 1), lr=2e-3, start_lr=0.0, weight_decay=1e-3, batch=64,
            length=4,
        ),
    ),
    "dino-wm": JEPAWMConfig(  # sizes of dino_wm, conf/; DINOv2's patches come through the slot
        model=ModelConfig(
            encoder=VIT["small"].with_(patch=14),
            normalise=False,
            predictor=PredictorConfig(width=384, depth=6, heads=16, mlp_ratio=2048 / 384),
            window=3,
            stride=5,
            rollout=0,
            exponent=2.0,
            distance="squared",
        ),
        agent=JEPAWMAgentConfig(
            planner=_blocks(5, 300, 30, 10, 5), lr=5e-4, start_lr=5e-4, weight_decay=0.0, batch=32,
            length=4, warmup=0.0,
        ),
    ),
    "vjepa2-ac": JEPAWMConfig(
        model=ModelConfig(predictor=PredictorConfig(extrinsics=6), proprio="auto"),
    ),
}  # fmt: skip

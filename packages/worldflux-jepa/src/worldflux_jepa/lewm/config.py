"""Configuration of LeWorldModel. Sources: stable-worldmodel, `scripts/train/lewm.py` or named."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from worldflux.config import Config
from worldflux.planning.config import (
    AnyPlannerConfig,
    CEMConfig,
    MPPIConfig,
    PlanningAgentConfig,
    ScoreConfig,
)
from worldflux_jepa.vit_config import VIT, ViTConfig

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class PredictorConfig(Config):
    """The transformer that predicts the next embedding (`wm/lewm/module.py`)."""

    depth: PositiveInt = 6
    """Blocks (`depth`)."""
    heads: PositiveInt = 16
    """Attention heads (`heads`)."""
    head_size: PositiveInt = 64
    """Features of a head (`dim_head`)."""
    mlp: PositiveInt = 2048
    """Hidden units of a block's MLP (`mlp_dim`)."""
    width: PositiveInt | None = None
    """Features of a token inside; None: as many as an embedding has (`hidden_dim`)."""
    dropout: Share = 0.1
    """In attention and MLPs (`dropout`)."""
    input_dropout: Share = 0.0
    """Of the embeddings that come in (`emb_dropout`)."""


class ModelConfig(Config):
    """Encoder, predictor and the regulariser."""

    encoder: Literal["vit", "conv"] = "vit"
    """The default encoder's kind: a vision transformer, or few convolutions for small images."""
    vit: ViTConfig = VIT["tiny"].with_(patch=14, class_token=True)
    """The vision transformer (`encoder`: ViT-tiny, patches of 14 pixels)."""
    conv: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 64)
    """Channels of the convolutions, each of which halves the image."""
    embed: PositiveInt = 192
    """D, features of an embedding (`embed_dim`)."""
    projector: PositiveInt = 2048
    """Hidden units of both projectors (`projector.hidden_dim`)."""
    predictor: PredictorConfig = PredictorConfig()
    """What predicts the next embedding."""
    action_mlp: PositiveInt = 4
    """Hidden units of the action encoder over D (`mlp_scale`)."""
    action_width: PositiveInt | None = None
    """Features of a block after the first layer; None: its numbers (`smoothed_dim`)."""
    history: PositiveInt = 3
    """W, embeddings that a prediction sees (`history_size`)."""
    stride: PositiveInt = 5
    """k, steps of the environment that a prediction spans, a block of actions (`frameskip`)."""
    sigreg: NonNegativeFloat = 0.09
    """Weight of SIGReg (`sigreg.weight`)."""
    directions: PositiveInt = 1024
    """Random directions along which SIGReg looks (`num_proj`)."""
    knots: Annotated[int, Field(ge=2)] = 17
    """Points at which it compares characteristic functions (`knots`)."""
    cost: Literal["last", "sum"] = "last"
    """A plan's cost: the distance to the goal at its end, or summed over its steps."""
    distance: Literal["squared", "l1", "cosine"] = "squared"
    """Distance of embeddings to the goal's: sum of squares, mean of absolutes, 1 - cosine."""
    rows: PositiveInt = 4096
    """Candidates scored at once; more are scored in pieces."""


class LeWMAgentConfig(PlanningAgentConfig):
    """Training and planning; what is not said is as for every planning agent."""

    planner: AnyPlannerConfig = CEMConfig(
        horizon=5, candidates=300, elites=30, iterations=30, execute=5, warm_start=False,
        score=ScoreConfig(goal_key="rep"),
    )  # fmt: skip
    """How to plan (`solver/cem.yaml`): blocks of actions, a new plan when all are executed."""
    lr: PositiveFloat = 5e-5
    """AdamW's learning rate (`lr`)."""
    weight_decay: NonNegativeFloat = 1e-3
    """AdamW's weight decay (`weight_decay`)."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient (`gradient_clip_val`)."""
    warmup: Share = 0.01
    """Share of the run that warms up, before half a cosine to 0."""
    batch: PositiveInt = 128
    """Sequences in an update (`batch_size`)."""
    length: Annotated[int, Field(ge=2)] = 4
    """Observations of a sequence: history and one to predict."""


class LeWMConfig(Config):
    """LeWorldModel: world model and agent."""

    model: ModelConfig = ModelConfig()
    """The world model."""
    agent: LeWMAgentConfig = LeWMAgentConfig()
    """Training and planning."""


PRESETS = {
    "base": LeWMConfig(),
    "mini": LeWMConfig(  # ours: learns two-room from 32 x 32 images in a minute of a CPU
        model=ModelConfig(
            encoder="conv",
            embed=16,
            projector=128,
            history=1,
            cost="sum",
            predictor=PredictorConfig(depth=2, heads=2, head_size=32, mlp=128, dropout=0.0),
            directions=64,
        ),
        agent=LeWMAgentConfig(
            planner=MPPIConfig(
                horizon=5, candidates=128, elites=128, iterations=6, init_std=1.0,
                temperature=0.25, select="mean", execute=1, score=ScoreConfig(goal_key="rep"),
            ),
            lr=2e-3,
            batch=64,
        ),
    ),
}  # fmt: skip

"""Configuration of PlaNet (1811.04551; `configs.py` of google-research/planet)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from worldflux.config import Config
from worldflux.planning.config import (
    AnyPlannerConfig,
    CEMConfig,
    PlanningAgentConfig,
    ScoreConfig,
)
from worldflux_dreamer.latent_rssm.config import Activation, LatentConfig


class ModelConfig(LatentConfig):
    """The world model; `free_nats` apply to every step's KL, by subtraction."""

    activation: Activation = "relu"
    """After every dense layer (`activation`)."""
    bits: Annotated[int, Field(ge=1, le=8)] = 5
    """Bits of each colour that the model sees (`image_bits`)."""
    units: PositiveInt = 300
    """Units of every head (`num_units`)."""
    reward_layers: PositiveInt = 3
    """Layers of the reward head (`num_layers`)."""
    scale_reward: Annotated[float, Field(ge=0)] = 10.0
    """Weight of the reward's negative log likelihood (`reward_loss_scale`)."""


class AgentConfig(PlanningAgentConfig):
    """CEM over predicted rewards, one Adam."""

    planner: AnyPlannerConfig = CEMConfig(
        horizon=12,
        candidates=1000,
        iterations=10,
        elites=100,
        exploration=0.3,
        warm_start=False,
        score=ScoreConfig(deterministic=False),
    )
    """How to plan (appendix A: H = 12, J = 1000, I = 10, K = 100, noise 0.3; sampled latents; every
    plan begins with mean 0 and std 1, algorithm 2)."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Adam's learning rate (`main_learning_rate`)."""
    eps: Annotated[float, Field(gt=0)] = 1e-4
    """Adam's epsilon."""
    clip: Annotated[float, Field(gt=0)] = 1000.0
    """Largest norm of the gradient (`main_gradient_clipping`)."""
    updates_per_step: Annotated[float, Field(gt=0)] = 0.4
    """100 updates per collected episode, of 250 steps with action repeat 4 (`collect_every`)."""
    prefill: int = Field(1250, ge=0)
    """Random agent steps before learning: 5 episodes (`num_seed_episodes`)."""


class PlaNetConfig(Config):
    """PlaNet: the rooms `model.*` and `agent.*`."""

    model: ModelConfig = ModelConfig()
    """The world model."""
    agent: AgentConfig = AgentConfig()
    """Planner, optimiser and training plan."""


_SMALL = {"deter": 64, "hidden": 64, "stoch": 8, "units": 64, "vector_layers": 2}
PRESETS = {
    "dmc": PlaNetConfig(),
    "small": PlaNetConfig(
        model=ModelConfig(**_SMALL, free_nats=0.5, scale_reward=1.0),
        agent=AgentConfig(
            planner=AgentConfig().planner.with_(candidates=200, iterations=4, elites=20),
            batch=16,
            length=32,
            prefill=1000,
        ),
    ),
}
"""`dmc`: control from pixels with action repeat 4, as cheetah-run has it. `small` is ours, for
vectors on a CPU."""

"""Configuration of the modular RSSM: parts to choose from, and sizes. The numbers are ours."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import NonNegativeFloat, PositiveInt, model_validator

from worldflux.config import Config
from worldflux.planning.config import CEMConfig, PlanningAgentConfig
from worldflux_dreamer.latent_rssm.config import Core, Probability, SizesConfig


class ModelConfig(SizesConfig):
    """Which parts, and how large."""

    encoder: Literal["conv", "mlp", "vit"] = "conv"
    """What reads images; vectors are always read by an MLP."""
    decoder: Literal["conv", "mlp"] = "conv"
    """What draws images; vectors always come from an MLP."""
    dynamics: Core | Literal["transformer"] = "gru"
    """What carries memory: a recurrent core, or attention over past steps."""
    stoch: PositiveInt = 32
    """S, size of the stochastic state, or number of its categorical latents."""
    free_nats: NonNegativeFloat = 1.0
    """KL in nats, of the batch's mean, that costs nothing."""
    balance: Probability = 0.8
    """Share of the KL that trains the prior, the rest trains the posterior."""
    embed: PositiveInt = 1024
    """E, size of what the vision transformer gives."""
    patch: PositiveInt = 8
    """Side of a patch, in pixels."""
    vit_units: PositiveInt = 256
    """Units of the vision transformer."""
    vit_layers: PositiveInt = 6
    """Layers of the vision transformer."""
    vit_heads: PositiveInt = 8
    """Attention heads of the vision transformer."""
    layers: PositiveInt = 2
    """Layers of the transformer dynamics."""
    heads: PositiveInt = 4
    """Attention heads of the transformer dynamics; they divide D."""
    memory: PositiveInt = 32
    """M, past steps that the transformer dynamics sees."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        for units, heads in (("deter", "heads"), ("vit_units", "vit_heads")):
            if getattr(self, units) % getattr(self, heads):
                raise ValueError(
                    f"{units}={getattr(self, units)} is not a multiple of "
                    f"{heads}={getattr(self, heads)}"
                )
        return self


class ModularConfig(Config):
    """The modular RSSM: the rooms `model.*` and `agent.*`."""

    model: ModelConfig = ModelConfig()
    """The world model."""
    agent: PlanningAgentConfig = PlanningAgentConfig(
        planner=CEMConfig(exploration=0.3), lr=1e-3, eps=1e-5, batch=16, length=32
    )
    """Planner, optimiser and training plan."""


_PLANNER = CEMConfig(candidates=200, iterations=4, elites=20, exploration=0.3)
PRESETS = {
    "base": ModularConfig(),
    "small": ModularConfig(
        model=ModelConfig(
            deter=64,
            hidden=64,
            stoch=8,
            units=64,
            depth=8,
            vector_layers=2,
            embed=64,
            vit_units=64,
            vit_layers=2,
            vit_heads=4,
        ),
        agent=ModularConfig().agent.with_(planner=_PLANNER),
    ),
}

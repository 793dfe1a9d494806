"""Genie as a WorldFlux plugin."""

from collections.abc import Iterable

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, ModelSpec
from worldflux_genie.config import PRESETS, GenieConfig


@hookimpl
def worldflux_models() -> Iterable[ModelSpec]:
    yield ModelSpec(
        family="genie",
        config=GenieConfig,
        presets=PRESETS,
        default_preset="tiny",
        model="worldflux_genie.world_model:GenieWorldModel",
        agent="worldflux_genie.agent:GenieLearner",
        description="Worlds to play in, from video alone: latent actions, tokens, MaskGIT.",
        paper="Bruce et al., Genie: Generative Interactive Environments, 2024",
        capabilities=frozenset({Capability.OBS_DECODE, Capability.LATENT_ACTIONS}),
        check=None,  # its actions are its own: no known world has them
        defaults={
            name: {"train.steps": config.agent.clock, "train.eval_every": config.agent.clock // 3}
            for name, config in PRESETS.items()
        },
    )

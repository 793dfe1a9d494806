"""The modular RSSM as a WorldFlux plugin."""

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, CheckSettings, ModelSpec
from worldflux_dreamer.modular.config import PRESETS, ModularConfig

ABLE = frozenset(map(Capability, ("obs_decode", "reward_pred", "planning")))


CHECK = CheckSettings(
    {
        "model.deter": 64,
        "model.hidden": 64,
        "model.units": 64,
        "model.stoch": 8,
        "model.embed": 64,
        "agent.lr": 3e-3,
    },
    updates=100,
)


@hookimpl
def worldflux_models() -> list[ModelSpec]:
    spec = ModelSpec(
        family="rssm",
        config=ModularConfig,
        presets=PRESETS,
        default_preset="base",
        model="worldflux_dreamer.modular.world_model:ModularWorldModel",
        agent="worldflux_dreamer.modular.agent:ModularAgent",
        description="Encoder, latent dynamics and decoder of your choice; acts by planning.",
        aliases=("modular-rssm",),
        capabilities=ABLE,
        check=CHECK,
    )
    return [spec]

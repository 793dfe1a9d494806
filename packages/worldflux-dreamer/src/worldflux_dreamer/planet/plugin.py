"""PlaNet as a WorldFlux plugin."""

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, CheckSettings, ModelSpec
from worldflux_dreamer.planet.config import PRESETS, PlaNetConfig

ABLE = frozenset(map(Capability, ("obs_decode", "reward_pred", "planning")))


CHECK = CheckSettings(
    {"model.deter": 64, "model.hidden": 64, "model.units": 64, "agent.lr": 3e-3},
    updates=250,
)


@hookimpl
def worldflux_models() -> list[ModelSpec]:
    spec = ModelSpec(
        family="planet",
        config=PlaNetConfig,
        presets=PRESETS,
        default_preset="dmc",
        model="worldflux_dreamer.planet.world_model:PlaNetWorldModel",
        agent="worldflux_dreamer.planet.agent:PlaNetAgent",
        description="Gaussian RSSM; acts by planning with the cross-entropy method.",
        paper="Hafner et al., Learning Latent Dynamics for Planning from Pixels, ICML 2019",
        aliases=("pla-net",),
        capabilities=ABLE,
        check=CHECK,
    )
    return [spec]

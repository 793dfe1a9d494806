"""DreamerV1 as a WorldFlux plugin."""

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, CheckSettings, ModelSpec
from worldflux_dreamer.dreamerv1.config import PRESETS, DreamerV1Config

ABLE = frozenset(map(Capability, ("obs_decode", "reward_pred", "continue_pred", "planning")))


CHECK = CheckSettings(
    {
        "model.deter": 64,
        "model.hidden": 64,
        "model.units": 64,
        "model.stoch": 8,
        "agent.model_lr": 3e-3,
        "agent.horizon": 3,
    },
    updates=200,
)


@hookimpl
def worldflux_models() -> list[ModelSpec]:
    spec = ModelSpec(
        family="dreamerv1",
        config=DreamerV1Config,
        presets=PRESETS,
        default_preset="dmc",
        model="worldflux_dreamer.dreamerv1.world_model:DreamerV1WorldModel",
        agent="worldflux_dreamer.dreamerv1.agent:DreamerV1Agent",
        description="Gaussian RSSM; acts by gradients of imagined returns through the dynamics.",
        paper="Hafner et al., Dream to Control, ICLR 2020",
        aliases=("dreamer-v1",),
        capabilities=ABLE,
        check=CHECK,
    )
    return [spec]

"""DreamerV3 as a WorldFlux plugin."""

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, CheckSettings, ModelSpec
from worldflux_dreamer.dreamerv3.config import PRESETS, DreamerV3Config

CHECK = CheckSettings(
    {
        "model.deter": 64,
        "model.hidden": 32,
        "model.stoch": 8,
        "model.classes": 8,
        "model.units": 32,
        "model.blocks": 1,
        "agent.lr": 2e-3,
        "agent.warmup": 0,
        "agent.imag_length": 2,
        "agent.imag_last": 2,
    },
    updates=250,
)
ABLE = (Capability.OBS_DECODE, Capability.REWARD_PRED, Capability.CONTINUE_PRED)
DREAMERV3 = ModelSpec(
    family="dreamerv3",
    config=DreamerV3Config,
    presets=PRESETS,
    default_preset="size12m",
    model="worldflux_dreamer.dreamerv3.world_model:DreamerV3WorldModel",
    agent="worldflux_dreamer.dreamerv3.agent:DreamerV3Agent",
    aliases=("dreamer",),
    description="Learns a recurrent latent model and acts by imagining in it.",
    paper="Hafner et al., Nature 2025",
    capabilities=frozenset({*ABLE, Capability.PLANNING}),
    check=CHECK,
    defaults={"*": {"train.replay_online": True}},  # `replay.online`
)


@hookimpl
def worldflux_models() -> list[ModelSpec]:
    return [DREAMERV3]

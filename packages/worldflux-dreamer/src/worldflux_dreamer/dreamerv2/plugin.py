"""DreamerV2 as a WorldFlux plugin."""

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, CheckSettings, ModelSpec
from worldflux_dreamer.dreamerv2.config import PRESETS, DreamerV2Config

ABLE = frozenset(map(Capability, ("obs_decode", "reward_pred", "continue_pred", "planning")))


CHECK = CheckSettings(
    {
        "model.deter": 64,
        "model.hidden": 64,
        "model.units": 64,
        "model.stoch": 8,
        "model.classes": 8,
        "agent.model_lr": 3e-3,
        "agent.horizon": 3,
    },
    updates=200,
)


@hookimpl
def worldflux_models() -> list[ModelSpec]:
    spec = ModelSpec(
        family="dreamerv2",
        config=DreamerV2Config,
        presets=PRESETS,
        default_preset="dmc",
        model="worldflux_dreamer.dreamerv2.world_model:DreamerV2WorldModel",
        agent="worldflux_dreamer.dreamerv2.agent:DreamerV2Agent",
        description="Categorical RSSM with a balanced KL; REINFORCE or dynamics gradients.",
        paper="Hafner et al., Mastering Atari with Discrete World Models, ICLR 2021",
        aliases=("dreamer-v2",),
        capabilities=ABLE,
        check=CHECK,
        defaults={"*": {"train.replay_capacity": 2_000_000}},  # `replay_size`
    )
    return [spec]

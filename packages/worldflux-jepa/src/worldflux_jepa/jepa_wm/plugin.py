"""JEPA world models as a WorldFlux plugin."""

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, CheckSettings, ModelSpec
from worldflux_jepa.jepa_wm.config import PRESETS, JEPAWMConfig


@hookimpl
def worldflux_models() -> list[ModelSpec]:
    spec = ModelSpec(
        family="jepa-wm",
        config=JEPAWMConfig,
        presets=PRESETS,
        default_preset="small",
        model="worldflux_jepa.jepa_wm.world_model:JEPAWorldModel",
        agent="worldflux_jepa.jepa_wm.agent:JEPAWMAgent",
        description="Predicts the next image's tokens from actions and plans toward goals in them.",
        paper="Assran et al., V-JEPA 2, 2025; Zhou et al., DINO-WM, 2024",
        aliases=("jepa_wm", "vjepa2-ac"),
        capabilities=frozenset({Capability.PLANNING, Capability.GOAL_CONDITIONED}),
        check=CheckSettings({"model.stride": 1, "model.window": 8}, preset="small", image=32),
    )
    return [spec]

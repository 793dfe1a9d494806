"""LeWorldModel as a WorldFlux plugin."""

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, CheckSettings, ModelSpec
from worldflux_jepa.lewm.config import PRESETS, LeWMConfig


@hookimpl
def worldflux_models() -> list[ModelSpec]:
    spec = ModelSpec(
        family="lewm",
        config=LeWMConfig,
        presets=PRESETS,
        default_preset="base",
        model="worldflux_jepa.lewm.world_model:LeWorldModel",
        agent="worldflux_jepa.lewm.agent:LeWMAgent",
        description="Predicts the next embedding from pixels and plans toward goals in it.",
        paper="Maes et al., LeWorldModel: Stable End-to-End Joint-Embedding Predictive "
        "Architecture from Pixels, 2026",
        aliases=("leworldmodel", "le-wm"),
        capabilities=frozenset({Capability.PLANNING, Capability.GOAL_CONDITIONED}),
        # Gates begin closed: with a history of one nothing of a State would tell of the action.
        check=CheckSettings(
            {"model.stride": 1, "model.history": 3}, preset="mini", updates=200, image=32
        ),
    )
    return [spec]

"""V-JEPA as a WorldFlux plugin."""

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import CheckSettings, ModelSpec
from worldflux_jepa.vjepa.config import PRESETS, VJEPAConfig


@hookimpl
def worldflux_models() -> list[ModelSpec]:
    spec = ModelSpec(
        family="vjepa",
        config=VJEPAConfig,
        presets=PRESETS,
        default_preset="large",
        model="worldflux_jepa.vjepa.world_model:VJEPAModel",
        agent="worldflux_jepa.vjepa.agent:VJEPALearner",
        description="Video representations, by guessing hidden tubelets' features.",
        paper="Bardes et al., Revisiting Feature Prediction for Learning Visual Representations "
        "from Video, 2024",
        aliases=("v-jepa",),
        check=CheckSettings(
            {"model.encoder.depth": 1, "model.encoder.width": 48, "model.frames": 2,
             "model.predictor.depth": 1},
            preset="tiny",
            updates=60,
            image=32,
        ),
    )  # fmt: skip
    return [spec]

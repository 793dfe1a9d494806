"""I-JEPA as a WorldFlux plugin."""

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import CheckSettings, ModelSpec
from worldflux_jepa.ijepa.config import PRESETS, IJEPAConfig

CROP = {"random_resized_crop": {"size": 224, "scale": [0.3, 1.0]}}
"""All that is done to images (`configs/`: `crop_size`, `crop_scale`; neither flips nor colours)."""


@hookimpl
def worldflux_models() -> list[ModelSpec]:
    spec = ModelSpec(
        family="ijepa",
        config=IJEPAConfig,
        presets=PRESETS,
        default_preset="small",
        model="worldflux_jepa.ijepa.world_model:IJEPAModel",
        agent="worldflux_jepa.ijepa.agent:IJEPALearner",
        description="Image representations, by guessing hidden patches' features.",
        paper="Assran et al., Self-Supervised Learning from Images with a Joint-Embedding "
        "Predictive Architecture, CVPR 2023",
        aliases=("i-jepa",),
        defaults={name: {"data.augment": [CROP]} for name in PRESETS if name != "mini"},
        check=CheckSettings(
            {"model.encoder.depth": 1, "model.encoder.width": 48, "model.predictor.depth": 1},
            preset="mini",
            updates=60,
            image=32,
        ),
    )
    return [spec]

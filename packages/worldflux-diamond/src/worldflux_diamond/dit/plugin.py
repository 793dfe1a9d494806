"""DiT as a WorldFlux plugin."""

from collections.abc import Iterable

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, CheckSettings, ModelSpec
from worldflux_diamond.dit.config import PRESETS, DiTConfig

_CHECK = CheckSettings(
    {
        "model.width": 16,
        "model.depth": 1,
        "model.heads": 2,
        "model.classes": 3,
        "model.spacing": "2",
    },
    preset="tiny",
    updates=0,  # images of the known world take minutes: see tests/learning
    image=16,
)
_CAN = frozenset(map(Capability, ("unconditional", "obs_decode", "stateless")))


@hookimpl
def worldflux_models() -> Iterable[ModelSpec]:
    yield ModelSpec(
        family="dit",
        config=DiTConfig,
        presets=PRESETS,
        default_preset="s-2",
        model="worldflux_diamond.dit.world_model:DiTWorldModel",
        agent="worldflux_diamond.dit.learner:DiTLearner",
        description="Images by diffusion with a transformer, of labels or without.",
        paper="Peebles and Xie, Scalable Diffusion Models with Transformers, 2023",
        capabilities=_CAN,
        check=_CHECK,
    )

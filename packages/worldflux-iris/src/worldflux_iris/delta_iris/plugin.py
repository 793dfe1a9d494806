"""Delta-IRIS as a WorldFlux plugin."""

from collections.abc import Iterable

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, ModelSpec
from worldflux_iris.delta_iris.config import PRESETS, DeltaIRISConfig

_CAN = frozenset(map(Capability, ("obs_decode", "reward_pred", "continue_pred", "planning")))


@hookimpl
def worldflux_models() -> Iterable[ModelSpec]:
    yield ModelSpec(
        family="delta-iris",
        config=DeltaIRISConfig,
        presets=PRESETS,
        default_preset="atari",
        model="worldflux_iris.delta_iris.world_model:DeltaIRISWorldModel",
        agent="worldflux_iris.delta_iris.agent:DeltaIRISAgent",
        description="Changes between frames as few tokens, a transformer over them and frames.",
        paper="Micheli et al., Efficient World Models with Context-Aware Tokenization, 2024",
        capabilities=_CAN,
        check=None,  # its presets predict a reward's sign; the known world's are distances
    )

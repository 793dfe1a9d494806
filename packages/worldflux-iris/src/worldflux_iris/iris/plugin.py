"""IRIS as a WorldFlux plugin."""

from collections.abc import Iterable

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, ModelSpec
from worldflux_iris.iris.config import PRESETS, IRISConfig

_CAN = frozenset(map(Capability, ("obs_decode", "reward_pred", "continue_pred", "planning")))


@hookimpl
def worldflux_models() -> Iterable[ModelSpec]:
    yield ModelSpec(
        family="iris",
        config=IRISConfig,
        presets=PRESETS,
        default_preset="base",
        model="worldflux_iris.iris.world_model:IRISWorldModel",
        agent="worldflux_iris.iris.agent:IRISAgent",
        description="Frames as tokens, a transformer that predicts them, a policy in its dreams.",
        paper="Micheli et al., Transformers are Sample-Efficient World Models, 2023",
        capabilities=_CAN,
        check=None,  # it knows a reward's sign alone; the known world's are distances
    )

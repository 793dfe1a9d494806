"""What worldflux-ring provides. This module and config.py import no torch."""

from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, ModelSpec
from worldflux_ring.config import PRESETS, RingConfig

ABLE = (Capability.OBS_DECODE, Capability.REWARD_PRED, Capability.PLANNING, Capability.STATELESS)


@hookimpl
def worldflux_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            family="ring",
            config=RingConfig,
            presets=PRESETS,
            default_preset="small",
            model="worldflux_ring.world_model:RingModel",
            agent="worldflux_ring.agent:RingAgent",
            description="a point on a ring that actions turn",
            capabilities=frozenset(ABLE),
            check=None,  # a point has no room for the last move, which the known world rewards
        )
    ]

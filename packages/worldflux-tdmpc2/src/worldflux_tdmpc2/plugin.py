"""TD-MPC2 as a WorldFlux plugin."""

from collections.abc import Iterable

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, CheckSettings, ModelSpec
from worldflux_tdmpc2.config import PRESETS, TDMPC2Config

_CHECK = CheckSettings(
    {"model.latent_dim": 64, "model.mlp_dim": 64, "model.enc_dim": 64, "agent.lr": 1e-3},
    updates=150,
)
_CAN = frozenset(map(Capability, ("reward_pred", "value_pred", "planning", "stateless")))


@hookimpl
def worldflux_models() -> Iterable[ModelSpec]:
    yield ModelSpec(
        family="tdmpc2",
        config=TDMPC2Config,
        presets=PRESETS,
        default_preset="5m",
        model="worldflux_tdmpc2.world_model:TDMPC2WorldModel",
        agent="worldflux_tdmpc2.agent:TDMPC2Agent",
        description="Latent dynamics without a decoder; plans with a learned policy and value.",
        paper="Hansen et al., TD-MPC2: Scalable, Robust World Models for Continuous Control, 2024",
        capabilities=_CAN,
        check=_CHECK,
    )

"""DIAMOND as a WorldFlux plugin."""

from collections.abc import Iterable

import _worldflux_guard  # noqa: F401 - refuses the unrelated 'worldflux'
from worldflux.hookspecs import hookimpl
from worldflux.specs import Capability, CheckSettings, ModelSpec
from worldflux_diamond.diamond.config import PRESETS, DiamondConfig

_CHECK = CheckSettings(
    {
        "model.denoiser.channels": (8, 16),
        "model.denoiser.depths": (1, 1),
        "model.denoiser.attention": (False, False),
        "model.denoiser.cond": 16,
        "model.denoiser.history": 2,
        "model.denoiser.steps": 1,
        "model.reward_end.channels": (8, 8),
        "model.reward_end.depths": (1, 1),
        "model.reward_end.attention": (False, False),
        "model.reward_end.cond": 8,
        "model.reward_end.lstm": 16,
        "agent.channels": (8, 8),
        "agent.lstm": 16,
        "agent.horizon": 2,
        "agent.reward_steps": 4,
    },
    preset="tiny",
    updates=0,  # frames of the known world take minutes: tests/learning has wf/catch
    image=16,
)
_CAN = frozenset(map(Capability, ("obs_decode", "reward_pred", "continue_pred", "planning")))


@hookimpl
def worldflux_models() -> Iterable[ModelSpec]:
    yield ModelSpec(
        family="diamond",
        config=DiamondConfig,
        presets=PRESETS,
        default_preset="diamond",
        model="worldflux_diamond.diamond.world_model:DiamondWorldModel",
        agent="worldflux_diamond.diamond.agent:DiamondAgent",
        description="Predicts frames by diffusion; learns to act in what it imagines.",
        paper="Alonso et al., Diffusion for World Modeling: Visual Details Matter in Atari, 2024",
        capabilities=_CAN,
        check=_CHECK,
    )

"""How ring can be configured."""

from pydantic import PositiveInt

from worldflux.config import Config
from worldflux.planning.config import CEMConfig, PlanningAgentConfig


class RingConfig(Config):
    """Sizes of the networks, and how the agent learns and plans."""

    units: PositiveInt = 32
    """Width of the hidden layers."""
    agent: PlanningAgentConfig = PlanningAgentConfig(
        planner=CEMConfig(horizon=8, candidates=64, elites=8, iterations=3), batch=16, length=16
    )
    """Training and planning."""


PRESETS = {"small": RingConfig(), "large": RingConfig(units=256)}

"""How ring can be configured."""

from pydantic import PositiveInt

from worldflux.config import Config
from worldflux.planning.config import CEMConfig, PlanningAgentConfig


class ModelConfig(Config):
    """The room `model.*`: sizes of the networks."""

    units: PositiveInt = 32
    """Width of the hidden layers."""


class RingConfig(Config):
    """The rooms `model.*` and `agent.*`."""

    model: ModelConfig = ModelConfig()
    """Sizes of the networks."""
    agent: PlanningAgentConfig = PlanningAgentConfig(
        planner=CEMConfig(horizon=8, candidates=64, elites=8, iterations=3), batch=16, length=16
    )
    """Training and planning."""


PRESETS = {
    "small": RingConfig(),
    "large": RingConfig(model=ModelConfig(units=256)),
}

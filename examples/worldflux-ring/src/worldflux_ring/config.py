"""How ring can be configured."""

from pydantic import PositiveInt

from worldflux.config import Config
from worldflux.planning.config import CEMConfig, PlanningAgentConfig

PLANNER = CEMConfig(horizon=8, candidates=64, elites=8, iterations=3)


class ModelConfig(Config):
    units: PositiveInt = 32
    """Width of the hidden layers."""


class RingConfig(Config):
    """The rooms `model.*` and `agent.*`."""

    model: ModelConfig = ModelConfig()
    agent: PlanningAgentConfig = PlanningAgentConfig(planner=PLANNER, batch=16, length=16)


PRESETS = {"small": RingConfig(), "large": RingConfig(model=ModelConfig(units=256))}

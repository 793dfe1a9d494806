"""The modular RSSM as an agent: learns the model, and plans in it."""

from __future__ import annotations

from collections.abc import Mapping

from worldflux.planning.agent import PlanningAgent
from worldflux.specs import TensorSpec
from worldflux_dreamer.modular.config import ModularConfig
from worldflux_dreamer.modular.world_model import ModularWorldModel


class ModularAgent(PlanningAgent):
    """The model's loss, the planner's actions."""

    config: ModularConfig

    def __init__(
        self,
        config: ModularConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(ModularWorldModel(config, obs_spec, action_spec), config.agent, config)

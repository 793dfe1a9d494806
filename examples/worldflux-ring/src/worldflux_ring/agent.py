"""Learns the model and acts by planning in it."""

from collections.abc import Mapping

from worldflux import TensorSpec
from worldflux.planning import PlanningAgent
from worldflux_ring.config import RingConfig
from worldflux_ring.world_model import RingModel


class RingAgent(PlanningAgent):
    """The model's loss, the planner's actions."""

    def __init__(
        self,
        config: RingConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(RingModel(config, obs_spec, action_spec), config.agent, config)

"""Learns the model and acts by planning in it."""

from worldflux.planning import PlanningAgent
from worldflux_ring.world_model import RingModel


class RingAgent(PlanningAgent):
    """The model's loss, the planner's actions."""

    def __init__(self, config, obs_spec, action_spec):
        super().__init__(RingModel(config, obs_spec, action_spec), config.agent, config)

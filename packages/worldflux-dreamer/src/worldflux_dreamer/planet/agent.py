"""PlaNet's agent: learns the model, and plans in it with the cross-entropy method."""

from __future__ import annotations

from collections.abc import Mapping

from worldflux.planning.agent import PlanningAgent
from worldflux.specs import TensorSpec
from worldflux_dreamer.planet.config import PlaNetConfig
from worldflux_dreamer.planet.world_model import PlaNetWorldModel


class PlaNetAgent(PlanningAgent):
    """Plans from scratch at every step, by predicted rewards alone."""

    config: PlaNetConfig

    def __init__(
        self,
        config: PlaNetConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(PlaNetWorldModel(config, obs_spec, action_spec), config.agent, config)

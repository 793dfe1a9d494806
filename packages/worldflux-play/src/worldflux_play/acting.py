"""Who acts besides the person: the agent of the run, or a planner of core over its model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldflux.core.agent import Agent
from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import WorldFluxError
from worldflux.nn.device import device_of
from worldflux.planning.agent import PlanningAgent
from worldflux.planning.config import PlanningAgentConfig
from worldflux.planning.create import PLANNERS
from worldflux.specs import Capability

Array = NDArray[Any]


@dataclass(frozen=True)
class Seen:
    """One step as an agent saw it: the observation, and the action that was taken there."""

    obs: dict[str, Array]
    action: Array | None = None


SIZES: dict[str, dict[str, int]] = {
    "random_shooting": {"horizon": 10, "candidates": 128},
    "cem": {"horizon": 10, "candidates": 96, "elites": 12, "iterations": 3},
    "icem": {"horizon": 10, "candidates": 64, "elites": 8, "iterations": 3},
    "mppi": {"horizon": 5, "candidates": 96, "elites": 16, "iterations": 3},
    "gradient": {"horizon": 5, "candidates": 4, "iterations": 8},
}
"""Smaller than the planners' defaults: somebody waits for the picture."""


class Actor:
    """An agent in one episode. It is shown every step, and may act in any of them."""

    def __init__(self, agent: Agent, seed: int) -> None:
        self.agent = agent
        self.rand = Rand.seeded(seed, device_of(agent))
        self.state: State | None = None

    def catch_up(self, history: Iterable[Seen]) -> None:
        """Forget everything, then remember these steps, whose actions came from elsewhere."""
        self.state = None
        for step in history:
            self._observed(step.obs)
            self.took(step.action)

    @torch.no_grad()
    def act(self, obs: dict[str, Array]) -> Array:
        """The action (...) for an observation."""
        seen, first = self._seen(obs)
        payload, self.state = self.agent.act(seen, self.state, first, "eval", rand=self.rand)
        chosen: Array = payload.require()[0].cpu().numpy()
        return chosen

    def took(self, action: Array | None) -> None:
        """Tell it of the action that was really executed."""
        if action is not None and self.state is not None:
            self.state = self.agent.took(self.state, torch.as_tensor(action)[None])

    @torch.no_grad()
    def _observed(self, obs: dict[str, Array]) -> None:
        seen, first = self._seen(obs)
        self.state = self.agent.observe(seen, self.state, first, rand=self.rand)

    def _seen(self, obs: dict[str, Array]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        device = device_of(self.agent)
        keys = [key for key in obs if key in self.agent.obs_spec or key == "goal"]
        first = torch.full((1,), self.state is None, device=device)
        return tensors({key: obs[key] for key in keys}, device), first


def planners(model: WorldModel) -> list[str]:
    """The planners of core that can plan for reward in this model."""
    able = model.supports(Capability.PLANNING) and model.supports_reward
    if not able or model.action is None or model.stride != 1:
        return []
    return [name for name in PLANNERS if _can_be_made(model, name)]


def planning(model: WorldModel, name: str) -> Agent:
    """An agent that plans in the model with the planner of that name, at sizes to play with."""
    config: Any = PLANNERS[name][1](**SIZES.get(name, {}))
    settings = PlanningAgentConfig(planner=config)
    return _ForReward(model, settings).eval()


class _ForReward(PlanningAgent):
    """Plans for return, whatever goal is seen."""

    def conditions(self, obs: Any) -> None:
        return None


def _can_be_made(model: WorldModel, name: str) -> bool:
    try:
        planning(model, name)
    except WorldFluxError:
        return False  # it is for other spaces of actions
    return True


def tensors(obs: dict[str, Array], device: torch.device) -> dict[str, torch.Tensor]:
    """One observation as tensors (1, ...)."""
    return {key: torch.as_tensor(np.asarray(value)[None]).to(device) for key, value in obs.items()}


History = deque[Seen]
"""The newest steps of an episode, oldest first."""

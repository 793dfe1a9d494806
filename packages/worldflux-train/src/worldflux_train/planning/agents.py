"""The agent that plans: the run's own, or a planner over its world model."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from worldflux.core.agent import Agent, Learner
from worldflux.core.payloads import ActionPayload
from worldflux.errors import CapabilityError
from worldflux.planning.agent import PlanningAgent
from worldflux.planning.config import CEMConfig, PlanningAgentConfig, ScoreConfig
from worldflux.specs import Capability

SEARCH = CEMConfig(horizon=12, candidates=300, elites=30, iterations=5)


class Timed:
    """A planner that counts its plans and the time they take."""

    def __init__(self, planner: Any) -> None:
        self.planner, self.plans, self.seconds = planner, 0, 0.0

    def __call__(self, model: Any, state: Any, **options: Any) -> ActionPayload:
        """A plan, as the planner itself makes it."""
        began = time.perf_counter()
        plan: ActionPayload = self.planner(model, state, **options)
        self.seconds += time.perf_counter() - began
        self.plans += state.batch_size
        return plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self.planner, name)


def planning_agent(learner: Learner, goals: bool) -> Agent:
    """The run's agent where it plans; else one that plans in its world model with CEM.

    A model that predicts rewards is planned in for return, any other toward the goal by distance
    of latents. `CapabilityError` where it can do neither.
    """
    model = learner.world_model
    model.require(
        Capability.PLANNING,
        f"{type(model).__name__} cannot be planned in: it does not declare PLANNING.",
    )
    if not model.supports_reward and not goals:
        raise CapabilityError(
            f"{type(model).__name__} predicts no reward, and the environment's observations have "
            "no 'goal' to plan toward. Use one with a goal, such as wf/two-room."
        )
    if isinstance(learner, Agent) and learner.plans:
        return learner
    key = None if model.supports_reward else _latent(model.state_spec().tensors)
    settings = PlanningAgentConfig(planner=SEARCH.with_(score=ScoreConfig(goal_key=key)))
    made = _Towards(model, settings)
    made.stride = model.stride
    return made.eval()


class _Towards(PlanningAgent):
    """Plans for return where the model predicts rewards, whatever goal is seen."""

    def conditions(self, obs: Any) -> Any:
        return None if self.world_model.supports_reward else super().conditions(obs)


def _latent(keys: Collection[str]) -> str:
    """The tensor of a State that goals are compared in: the representation, or its first."""
    return "rep" if "rep" in keys else next(iter(keys))


def timed(agent: Agent) -> Timed:
    """Time the planner of `agent`."""
    own: Any = agent
    own.planner = Timed(own.planner)
    found: Timed = own.planner
    return found

"""Planners over any world model: random shooting, CEM, iCEM, MPPI, gradient ascent.

Importing this package or `worldflux.planning.config` imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worldflux.planning.action_space import ActionSpace as ActionSpace
    from worldflux.planning.agent import PlanningAgent as PlanningAgent
    from worldflux.planning.cem import CEM as CEM
    from worldflux.planning.create import create_planner as create_planner
    from worldflux.planning.gradient import GradientPlanner as GradientPlanner
    from worldflux.planning.icem import ICEM as ICEM
    from worldflux.planning.mppi import MPPI as MPPI
    from worldflux.planning.planner import Planner as Planner
    from worldflux.planning.random_shooting import RandomShooting as RandomShooting
    from worldflux.planning.score import default_score as default_score

_HOMES = {
    "ActionSpace": "action_space",
    "CEM": "cem",
    "GradientPlanner": "gradient",
    "ICEM": "icem",
    "MPPI": "mppi",
    "Planner": "planner",
    "PlanningAgent": "agent",
    "RandomShooting": "random_shooting",
    "create_planner": "create",
    "default_score": "score",
}

__all__ = sorted(_HOMES)


def _import(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


if not TYPE_CHECKING:  # checkers would take a misspelt name for one of type Any
    __getattr__ = _import

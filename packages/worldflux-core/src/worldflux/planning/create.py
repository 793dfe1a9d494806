"""Planners by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldflux.errors import ConfigError, UnknownIdError, did_you_mean
from worldflux.planning.cem import CEM
from worldflux.planning.config import (
    CEMConfig,
    GradientConfig,
    ICEMConfig,
    MPPIConfig,
    PlannerConfig,
    RandomShootingConfig,
)
from worldflux.planning.gradient import GradientPlanner
from worldflux.planning.icem import ICEM
from worldflux.planning.mppi import MPPI
from worldflux.planning.planner import Planner
from worldflux.planning.random_shooting import RandomShooting
from worldflux.specs import TensorSpec

PLANNERS: dict[str, tuple[type[Planner[Any]], type[PlannerConfig]]] = {
    "random_shooting": (RandomShooting, RandomShootingConfig),
    "cem": (CEM, CEMConfig),
    "icem": (ICEM, ICEMConfig),
    "mppi": (MPPI, MPPIConfig),
    "gradient": (GradientPlanner, GradientConfig),
}


def create_planner(
    name: str,
    action_spec: Mapping[str, TensorSpec] | TensorSpec,
    config: PlannerConfig | Mapping[str, Any] | None = None,
) -> Planner[Any]:
    """The planner called `name`, with its config, a mapping of fields, or its defaults."""
    if name not in PLANNERS:
        raise UnknownIdError(
            f"No planner {name!r}.{did_you_mean(name, PLANNERS)} Planners: {', '.join(PLANNERS)}."
        )
    planner, expected = PLANNERS[name]
    if config is None or isinstance(config, Mapping):
        config = expected(**dict(config or {}))
    if not isinstance(config, expected):
        raise ConfigError(
            f"Planner {name!r} takes a {expected.__name__}, got a {type(config).__name__}."
        )
    return planner(action_spec, config)

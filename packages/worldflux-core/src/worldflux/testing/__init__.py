"""Published conformance checks: what a plugin author runs against a model, agent or environment."""

from worldflux.testing.agent import check_agent
from worldflux.testing.batches import random_batch, random_obs
from worldflux.testing.env import check_env
from worldflux.testing.family import check_family
from worldflux.testing.slots import PerturbedSlot
from worldflux.testing.world_model import check_world_model

__all__ = [
    "PerturbedSlot",
    "check_agent",
    "check_env",
    "check_family",
    "check_world_model",
    "random_batch",
    "random_obs",
]

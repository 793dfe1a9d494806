"""Several environments stepped together."""

from worldflux_envs.vector.base import EpisodicVectorEnv
from worldflux_envs.vector.choice import make_vec

__all__ = ["EpisodicVectorEnv", "make_vec"]

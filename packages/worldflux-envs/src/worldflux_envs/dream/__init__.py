"""A world model as an environment, single and batched."""

from worldflux_envs.dream.env import WorldModelEnv
from worldflux_envs.dream.vector import WorldModelVectorEnv

__all__ = ["WorldModelEnv", "WorldModelVectorEnv"]

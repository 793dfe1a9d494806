"""Several environments stepped together."""

from worldflux_envs.vector.choice import make_vec

__all__ = ["make_vec"]

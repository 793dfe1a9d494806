"""Stable-Baselines3 on our vectors: `PPO("MultiInputPolicy", StableBaselinesVec(make_vec_env(…)))`.

Its vectors are another interface than Gymnasium's: an environment whose episode ended is reset in
the same step, and every row has an info of its own. Needs stable-baselines3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from worldflux.errors import EnvError
from worldflux_envs.vector.base import EpisodicVectorEnv

Indices = None | int | Iterable[int]


class StableBaselinesVec(VecEnv):
    """A vector that `worldflux.make_vec_env` made, as Stable-Baselines3 takes one.

    Observations are dicts of (B, ...): use "MultiInputPolicy". Each ended row's info holds
    `terminal_observation`, `TimeLimit.truncated` and `episode` (return and length), as
    Stable-Baselines3's own monitor gives them.
    """

    def __init__(self, vec: Any) -> None:
        if not (isinstance(vec, EpisodicVectorEnv) and vec.restarts_rows):
            raise EnvError(
                f"A {type(vec).__name__} cannot reset single rows. Make the vector with "
                'mode="sync" or "async", or put environments into one of Stable-Baselines3: '
                "DummyVecEnv([lambda: worldflux.make_env(ID)] * 4)."
            )
        self.vec = vec
        self.render_mode = vec.render_mode
        self._actions: Any = None
        self._returns = np.zeros(vec.num_envs)
        self._lengths = np.zeros(vec.num_envs, int)
        self._seed: int | None = None
        super().__init__(vec.num_envs, vec.single_observation_space, vec.single_action_space)

    def reset(self) -> dict[str, NDArray[Any]]:
        """Begin an episode everywhere, with the seed that `seed` got; observations (B, ...)."""
        obs, _ = self.vec.reset(seed=self._seed)
        self._seed = None
        self._returns[:] = self._lengths[:] = 0
        return obs

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Environment i has `seed + i` at the next reset."""
        self._seed = seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """One step; a row that ended shows its next episode already, and its last in its info."""
        obs, rewards, terminated, truncated, told = self.vec.step(self._actions)
        failed = told["is_first"]  # an environment that failed began anew: nothing led there
        self._returns = np.where(failed, 0, self._returns + rewards)
        self._lengths = np.where(failed, 0, self._lengths + 1)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            infos[i] = {
                "terminal_observation": {key: value[i].copy() for key, value in obs.items()},
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "episode": {"r": float(self._returns[i]), "l": int(self._lengths[i]), "t": 0.0},
            }
        if done.any():
            obs = self.vec.restart([int(i) for i in np.flatnonzero(done)])
            self._returns[done] = self._lengths[done] = 0
        return obs, rewards.astype(np.float32), done, infos

    def close(self) -> None:
        self.vec.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of the vector, which all rows share."""
        return [getattr(self.vec, attr_name)] * len(self._chosen(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        raise EnvError(f"{attr_name} cannot be set on rows of a vector: set it on `.vec`.")

    def env_method(
        self, method_name: str, *args: Any, indices: Indices = None, **options: Any
    ) -> list[Any]:
        raise EnvError(f"{method_name} cannot be called on rows of a vector: call `.vec`'s own.")

    def env_is_wrapped(self, wrapper_class: Any, indices: Indices = None) -> list[bool]:
        """No row has a wrapper of Gymnasium's; episodes are counted here, as its monitor would."""
        return [False] * len(self._chosen(indices))

    def _chosen(self, indices: Indices) -> list[int]:
        if indices is None:
            return list(range(self.num_envs))
        return [indices] if isinstance(indices, int) else list(indices)

"""A vector environment as the collector and the evaluator see it: everything of a step together."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux.spaces import action_specs, observation_specs
from worldflux.specs import TensorSpec
from worldflux_train.parts import read_part, under, write_part

logger = logging.getLogger(__name__)
Flags = NDArray[np.bool_]
FILE = "environments"
_FIELDS = ("reward", "is_first", "is_last", "is_terminal")


@dataclass
class Now:
    """What arrived last, per environment (N, ...)."""

    obs: dict[str, NDArray[Any]]
    reward: NDArray[np.float32]
    is_first: Flags
    is_last: Flags
    is_terminal: Flags


class Stepper:
    """Steps a `gymnasium.vector.VectorEnv` (NEXT_STEP autoreset) from given seeds.

    An environment of WorldFlux's own vectors also says which rows are first (one that failed
    starts anew) and can be saved in mid-episode (`get_state`, `set_state`). `returns` and
    `lengths` are those of the running episodes, up to and with `now`.
    """

    def __init__(self, envs: Any, seeds: list[int]) -> None:
        self.envs = envs
        self.num_envs: int = envs.num_envs
        # The environment's own repeat: Atari's frame skip, not an agent's action repeat.
        self.frames_per_step = int((envs.metadata or {}).get("frames_per_step", 1))
        self.obs_spec: dict[str, TensorSpec] = observation_specs(envs.single_observation_space)
        self.action_spec: dict[str, TensorSpec] = action_specs(envs.single_action_space)
        obs, _ = envs.reset(seed=list(seeds))
        self.now = self._beginning(obs)
        self.returns = np.zeros(self.num_envs)
        self.lengths = np.zeros(self.num_envs, np.int64)

    def tensors(self, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """The observations (N, ...) and which rows are first (N,), as an agent takes them."""
        obs = {key: torch.from_numpy(value).to(device) for key, value in self.now.obs.items()}
        return obs, torch.from_numpy(self.now.is_first).to(device)

    def step(self, action: NDArray[Any]) -> None:
        """Act in every environment; those whose episode is over are reset instead."""
        obs, reward, terminated, truncated, infos = self.envs.step(action)
        is_first = np.asarray(infos.get("is_first", self.now.is_last), bool)
        last = np.asarray(terminated | truncated, bool) & ~is_first
        self.now = Now(
            self._named(obs),
            np.where(is_first, 0, reward).astype(np.float32),
            is_first.copy(),
            last,
            np.asarray(terminated, bool) & last,
        )
        self.returns = np.where(is_first, 0.0, self.returns + self.now.reward)
        self.lengths = np.where(is_first, 0, self.lengths + 1)

    def save(self, folder: Path) -> None:
        """Write what arrived last, and the running episodes where the environment gives them."""
        arrays = {f"obs/{key}": value for key, value in self.now.obs.items()}
        arrays |= {key: getattr(self.now, key) for key in _FIELDS}
        arrays |= {"returns": self.returns, "lengths": self.lengths}
        tensors = {key: torch.from_numpy(np.ascontiguousarray(a)) for key, a in arrays.items()}
        write_part(folder, FILE, tensors, {"state": self.get_state()})

    def load(self, folder: Path) -> None:
        """Continue the running episodes that were saved, or begin new ones and say so."""
        tensors, saved = read_part(folder, FILE)
        self.returns, self.lengths = tensors["returns"].numpy(), tensors["lengths"].numpy()
        obs = {key: value.numpy() for key, value in under("obs/", tensors).items()}
        self.set_state(saved["state"], Now(obs, *(tensors[key].numpy() for key in _FIELDS)))

    def get_state(self) -> dict[str, Any] | None:
        """The running episodes as JSON values, None where the environment cannot give them."""
        return self.envs.get_state() if hasattr(self.envs, "get_state") else None

    def set_state(self, state: dict[str, Any] | None, now: Now) -> None:
        """Continue where `get_state` was called; `now` is what had arrived then."""
        if state is None or not hasattr(self.envs, "set_state"):
            logger.warning(
                "The environment cannot be saved in mid-episode: new episodes begin, and the run "
                "does not continue exactly as it would have."
            )
            self.returns[:], self.lengths[:] = 0.0, 0
            return
        obs, is_first = self.envs.set_state(state)
        self.now = Now(
            self._named(obs),
            np.where(is_first, 0, now.reward).astype(np.float32),
            now.is_first | is_first,
            now.is_last & ~is_first,
            now.is_terminal & ~is_first,
        )
        self.returns[is_first], self.lengths[is_first] = 0.0, 0

    def _beginning(self, obs: Any) -> Now:
        no = np.zeros(self.num_envs, bool)
        first = np.ones(self.num_envs, bool)
        return Now(self._named(obs), np.zeros(self.num_envs, np.float32), first, no, no.copy())

    def _named(self, obs: Any) -> dict[str, NDArray[Any]]:
        return dict(obs) if isinstance(obs, dict) else {next(iter(self.obs_spec)): np.asarray(obs)}

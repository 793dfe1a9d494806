"""Many dreams of one model as a `gymnasium.vector.VectorEnv`, stepped as one batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from worldflux.core.model import WorldModel
from worldflux.errors import EnvError
from worldflux_envs.boundary.finite import check_actions, check_rows
from worldflux_envs.dream.dreams import Dreams
from worldflux_envs.dream.env import WorldModelEnv
from worldflux_envs.dream.starts import Starts


class WorldModelVectorEnv(VectorEnv[Any, Any, Any]):
    """`num_envs` dreams; one that ended begins anew on the next step (NEXT_STEP autoreset)."""

    def __init__(
        self,
        model: WorldModel,
        num_envs: int,
        *,
        horizon: int = 200,
        starts: Starts = None,
        samples: int = 4,
        seed: int | None = None,
    ) -> None:
        if horizon < 1:
            raise EnvError(f"horizon must be at least 1, got {horizon}.")
        self.dreams = Dreams(model, num_envs, starts=starts, samples=samples, seed=seed or 0)
        self.num_envs, self.horizon = num_envs, horizon
        self.metadata = {**WorldModelEnv.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.render_mode = None
        self.single_observation_space = self.dreams.observation_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.single_action_space = self.dreams.action_space()
        self.action_space = batch_space(self.single_action_space, num_envs)
        device = self.dreams.session.state.device
        self._ended = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._t = torch.zeros(num_envs, dtype=torch.int64, device=device)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin every dream. One generator serves all of them: a list of seeds is one seed."""
        if isinstance(seed, list):
            seed = _one_seed(seed)
        self._t.zero_()
        self._ended.zero_()
        obs, nothing = _arrays(self.dreams.begin(seed)), np.zeros(self.num_envs)
        check_rows(nothing, obs, self._where)
        return obs, {"is_first": np.ones(self.num_envs, bool), "uncertainty": nothing}

    def step(self, actions: Any) -> tuple[dict[str, np.ndarray], Any, Any, Any, dict[str, Any]]:
        check_actions(actions, self._where)
        first = self._ended.clone()
        found = self.dreams.step(torch.as_tensor(np.asarray(actions)))
        obs = _arrays(self.dreams.again(first) if bool(first.any()) else found.obs)
        self._t = torch.where(first, 0, self._t + 1)
        terminated = found.terminated & ~first
        truncated = (self._t >= self.horizon) & ~terminated & ~first
        self._ended = terminated | truncated
        infos = {
            "is_first": first.cpu().numpy(),
            "uncertainty": (found.uncertainty * ~first).cpu().numpy(),
        }
        reward = torch.where(first, 0.0, found.reward).double().cpu().numpy()
        check_rows(reward, obs, self._where)
        return obs, reward, terminated.cpu().numpy(), truncated.cpu().numpy(), infos

    def _where(self, i: int) -> str:
        return f"Dream {i} of {type(self.dreams.model).__name__}, step {int(self._t[i])}"


def _one_seed(seeds: list[int | None]) -> int | None:
    """A seed that each of `seeds` has a part in; None where one of them is."""
    given = [seed for seed in seeds if seed is not None]
    if len(given) < len(seeds):
        return None
    return int(np.random.SeedSequence(given).generate_state(1)[0])


def _arrays(obs: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {key: value.cpu().numpy() for key, value in obs.items()}

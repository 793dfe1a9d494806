"""One dream as a `gymnasium.Env`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch

from worldflux.core.model import WorldModel
from worldflux.errors import EnvError
from worldflux_envs.dream.dreams import Dreams
from worldflux_envs.dream.starts import Starts


class WorldModelEnv(gymnasium.Env[Any, Any]):
    """Act inside `model`: its observations, rewards and terminations; truncated at `horizon`.

    `starts` says where dreams begin (see `StartStates`). `info["uncertainty"]` tells how little
    the model knows there.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 - gymnasium's

    def __init__(
        self,
        model: WorldModel,
        *,
        horizon: int = 200,
        starts: Starts = None,
        samples: int = 4,
        render_mode: str | None = None,
    ) -> None:
        if horizon < 1:
            raise EnvError(f"horizon must be at least 1, got {horizon}.")
        self.dreams = Dreams(model, 1, starts=starts, samples=samples)
        self.horizon, self.render_mode = horizon, render_mode
        self.observation_space = self.dreams.observation_space()
        self.action_space = self.dreams.action_space()
        self._t = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        first = self.dreams.begin(int(self.np_random.integers(2**31)))
        self._t = 0
        self._last = {key: value[0].cpu().numpy() for key, value in first.items()}
        return self._last, {"uncertainty": 0.0}

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        found = self.dreams.step(torch.as_tensor(np.asarray(action))[None])
        self._t += 1
        self._last = {key: value[0].cpu().numpy() for key, value in found.obs.items()}
        terminated = bool(found.terminated[0])
        info = {"uncertainty": float(found.uncertainty[0])}
        truncated = self._t >= self.horizon and not terminated
        return self._last, float(found.reward[0]), terminated, truncated, info

    def render(self) -> np.ndarray:
        """The imagined image (Y, X, C); `NotImplementedError` of a model that imagines none."""
        images = [x for x in self._last.values() if x.ndim == 3]
        if not images:
            name = type(self.dreams.model).__name__
            raise NotImplementedError(f"{name} imagines no image to render.")
        return np.ascontiguousarray(images[0].transpose(1, 2, 0))

"""A session as an environment: what the single and the vector environment share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldflux.core.model import WorldModel
from worldflux.errors import EnvError
from worldflux.session import Frame, Session
from worldflux.specs import Capability, TensorSpec
from worldflux_envs.boundary.actions import Choices
from worldflux_envs.dream.starts import Starts, StartStates


@dataclass
class DreamStep:
    """One step of N dreams: observations (N, ...), reward, terminated, uncertainty (N,)."""

    obs: dict[str, Tensor]
    reward: Tensor
    terminated: Tensor
    uncertainty: Tensor


class Dreams:
    """N dreams of `model`, a session of N rows. Each ends where its continue is drawn to be 0.

    A model that predicts no reward (of a video, say) gives 0 in every step.
    `samples` sampled next states measure the uncertainty, where the model gives none itself.
    """

    def __init__(
        self,
        model: WorldModel,
        rows: int,
        *,
        starts: Starts = None,
        samples: int = 4,
        seed: int = 0,
    ) -> None:
        model.require(Capability.OBS_DECODE, f"{type(model).__name__} predicts no observations.")
        if samples < 1:
            raise EnvError(f"samples must be at least 1, got {samples}.")
        self.model, self.samples = model, samples
        self.starts = StartStates(model, starts)
        self.session = Session(model, self.starts.sample, rows, seed)

    def observation_space(self) -> spaces.Dict:
        """As the model's observations; floats unbounded."""
        return spaces.Dict({key: _box(spec) for key, spec in self.model.obs_spec.items()})

    def action_space(self) -> spaces.Space[np.ndarray] | spaces.Discrete:
        """As the model's actions."""
        spec = self.model.required_action()
        if isinstance(spec.n, int):
            return Choices(spec.n, spec.labels)
        if spec.n is not None:
            return spaces.MultiDiscrete(list(spec.n))
        return spaces.Box(-1.0, 1.0, spec.shape, np.float32)

    def begin(self, seed: int | None = None) -> dict[str, Tensor]:
        """Fresh dreams in every row; from `seed` on, where one is given."""
        if seed is not None:
            self.session.seed(seed)
        return self.session.reset().obs

    def again(self, mask: Tensor) -> dict[str, Tensor]:
        """Fresh dreams in the rows where `mask` (N,) holds; observations of all."""
        return self.session.reset(mask).obs

    def step(self, action: Tensor) -> DreamStep:
        """One imagined step of every dream, by actions (N, ...)."""
        return _read(self.session.step(action), self.samples)


def _read(frame: Frame, samples: int) -> DreamStep:
    reward = frame.reward
    if reward is None:
        reward = torch.zeros(frame.state.batch_size, device=frame.state.device)
    ended = torch.zeros_like(reward, dtype=torch.bool) if frame.ended is None else frame.ended
    return DreamStep(frame.obs, reward, ended, frame.uncertainty(samples))


def _box(spec: TensorSpec) -> spaces.Box:
    if spec.dtype == "uint8":
        return spaces.Box(0, 255, spec.shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, spec.shape, np.float32)

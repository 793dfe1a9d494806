"""Steps of many dreams at once: what the single and the vector environment share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldflux.core.model import WorldModel
from worldflux.core.output import ModelOutput
from worldflux.core.rand import Rand, uniform
from worldflux.core.state import State
from worldflux.errors import EnvError
from worldflux.specs import Capability, TensorSpec
from worldflux_envs.dream.starts import Starts, StartStates


@dataclass
class Dreamt:
    """One step of N dreams: observations (N, ...), reward, terminated, uncertainty (N,)."""

    obs: dict[str, Tensor]
    reward: Tensor
    terminated: Tensor
    uncertainty: Tensor


class Dreams:
    """N dreams of `model`. Each ends where the predicted continue is drawn to be 0.

    `uncertainty` is the model's own where it gives one; else the standard deviation of the
    predicted reward over `samples` sampled next states (0 for a deterministic model).
    """

    def __init__(
        self, model: WorldModel, *, starts: Starts = None, samples: int = 4, seed: int = 0
    ) -> None:
        model.require(Capability.OBS_DECODE, f"{type(model).__name__} predicts no observations.")
        model.require(Capability.REWARD_PRED, f"{type(model).__name__} predicts no reward.")
        if samples < 1:
            raise EnvError(f"samples must be at least 1, got {samples}.")
        self.model, self.samples = model.eval(), samples
        self.starts = StartStates(model, starts)
        self.device = next(model.parameters()).device
        self.seed(seed)
        self.state = State({})

    def seed(self, seed: int) -> None:
        """All random numbers from now on follow from `seed`."""
        self.rand = Rand.seeded(seed, self.device)

    def observation_space(self) -> spaces.Dict:
        """As the model's observations; floats unbounded."""
        return spaces.Dict({key: _box(spec) for key, spec in self.model.obs_spec.items()})

    def action_space(self) -> spaces.Space[np.ndarray] | spaces.Discrete:
        """As the model's actions."""
        spec = next(iter(self.model.action_spec.values()))
        if isinstance(spec.n, int):
            return spaces.Discrete(spec.n)
        if spec.n is not None:
            return spaces.MultiDiscrete(list(spec.n))
        return spaces.Box(-1.0, 1.0, spec.shape, np.float32)

    @torch.no_grad()
    def begin(self, rows: Tensor | None, count: int) -> dict[str, Tensor]:
        """Fresh dreams in `rows` (all for None); observations of all."""
        number = count if rows is None else int(rows.sum())
        fresh = self.starts.sample(number, self.rand)
        if rows is None:
            self.state = fresh
        else:
            tensors = {key: value.clone() for key, value in self.state.tensors.items()}
            for key, value in tensors.items():
                value[rows] = fresh[key]
            self.state = State(tensors, self.state.meta)
        return self._obs(self.model.decode(self.state))

    @torch.no_grad()
    def step(self, action: Tensor) -> Dreamt:
        """One imagined step of every dream."""
        before = self.state
        self.state = self.model.transition(before, action.to(self.device), rand=self.rand)
        output = self.model.decode(self.state)
        reward = output.predictions["reward"]
        go_on = output.predictions.get("continue")
        ended = torch.zeros_like(reward, dtype=torch.bool)
        if go_on is not None:
            ended = self.rand.draw("continue", tuple(go_on.shape), uniform) >= go_on
        return Dreamt(self._obs(output), reward, ended, self._uncertainty(before, action, output))

    def _uncertainty(self, before: State, action: Tensor, output: ModelOutput) -> Tensor:
        if output.uncertainty is not None:
            return output.uncertainty
        reward = output.predictions["reward"]
        others = [reward]
        for i in range(self.samples - 1):
            rand = self.rand.under(f"other{i}/")
            state = self.model.transition(before, action.to(self.device), rand=rand)
            others.append(self.model.decode(state, keys=("reward",)).predictions["reward"])
        return torch.stack(others).std(0, correction=0)

    def _obs(self, output: ModelOutput) -> dict[str, Tensor]:
        return {
            key: _as(spec, output.predictions[key]) for key, spec in self.model.obs_spec.items()
        }


def _box(spec: TensorSpec) -> spaces.Box:
    if spec.dtype == "uint8":
        return spaces.Box(0, 255, spec.shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, spec.shape, np.float32)


def _as(spec: TensorSpec, predicted: Tensor) -> Tensor:
    """A prediction in the space of the observation: images in [0, 1] become uint8."""
    if spec.dtype == "uint8":
        return (predicted.clamp(0, 1) * 255).round().to(torch.uint8)
    return predicted.float()

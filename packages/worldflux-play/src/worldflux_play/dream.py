"""The dream: a session of core from what was really seen, and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldflux.core.actions import no_actions
from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.device import device_of
from worldflux.session import Frame, Session
from worldflux.specs import Capability
from worldflux_play.acting import Seen, tensors
from worldflux_play.pictures import distance, numbers

Array = NDArray[Any]


class Dream:
    """One row of imagination. It begins where a real history ends, and goes on without it."""

    def __init__(self, model: WorldModel, history: Sequence[Seen], seed: int) -> None:
        self.model = model
        self.decodes = model.supports(Capability.OBS_DECODE)
        starts = _batch(model, history) if history else _imagined(model)
        self.session = Session(model, starts, seed=seed)
        self.frame = self.session.frame()
        self._rand = Rand.seeded(seed, device_of(model)).under("real/")
        self.real = self.session.state
        """Where a model that decodes nothing would be, had it seen everything."""

    def step(self, action: Array) -> Frame:
        """One imagined step by an action (...)."""
        self.frame = self.session.step(self._row(action))
        return self.frame

    @torch.no_grad()
    def obs(self) -> dict[str, Array]:
        """What is imagined, by key; empty where the model decodes nothing."""
        if not self.decodes:
            return {}
        return {key: value[0].cpu().numpy() for key, value in self.frame.obs.items()}

    def latent(self) -> list[float]:
        """The first numbers of the State, for a model that decodes nothing."""
        return numbers(_first(self.session.state))

    @torch.no_grad()
    def apart(self, action: Array, obs: dict[str, Array]) -> tuple[list[float], float]:
        """The latent of what was really seen, and how far the dream's is from it."""
        keys = self.model.obs_spec
        seen = tensors({key: obs[key] for key in keys}, device_of(self.model))
        self.real = self.model.update(self.real, self._row(action), seen, rand=self._rand)
        real, dreamt = _first(self.real), _first(self.session.state)
        return numbers(real), distance(real, dreamt)

    def _row(self, action: Array) -> torch.Tensor | None:
        if self.model.action is None:
            return None
        return torch.as_tensor(action)[None].to(device_of(self.model))


def _batch(model: WorldModel, history: Sequence[Seen]) -> Batch:
    """The history as one real sequence (1, T, ...)."""
    spec, steps = model.action, len(history)
    device = device_of(model)
    nothing = no_actions(spec, (1,), torch.device("cpu"))[0].numpy()
    taken = [nothing if step.action is None else step.action for step in history]
    flags = torch.zeros(1, steps, dtype=torch.bool)
    first = flags.clone()
    first[:, 0] = True
    obs = {
        key: torch.as_tensor(np.stack([step.obs[key] for step in history])[None])
        for key in model.obs_spec
    }
    action = None if spec is None else torch.as_tensor(np.stack(taken)[None])
    return Batch(obs, first, flags, flags.clone(), action, torch.zeros(1, steps)).to(device)


def _imagined(model: WorldModel) -> Any:
    """Starts that a recurrent model imagines by itself: the prior of a first step."""

    def sample(count: int, rand: Rand) -> State:
        device = device_of(model)
        nothing = no_actions(model.action, (count,), device)
        return model.transition(model.initial(count, device), nothing, rand=rand)

    return sample


def _first(state: State) -> Array:
    """The first tensor of numbers in a State, of its only row."""
    found = next(value for value in state.tensors.values() if value.is_floating_point())
    values: Array = found[0].float().cpu().numpy()
    return values

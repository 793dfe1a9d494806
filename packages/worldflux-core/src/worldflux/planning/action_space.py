"""The box or the choices a planner searches, in coordinates common to all spaces."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from worldflux.core.payloads import ActionKind
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec, only_action


class ActionSpace:
    """Search coordinates (..., A): continuous actions scaled to [-1, 1], choices one-hot.

    A plan's distribution is a mean and a std (..., A). For choices the mean holds their
    probabilities, so that the mean of one-hot elites is the refitted categorical.
    """

    def __init__(self, action_spec: Mapping[str, TensorSpec] | TensorSpec) -> None:
        spec = only_action(action_spec, "A planner")
        if spec is None:
            raise ContractError("A planner needs an action space to search in, got none.")
        self.spec = spec
        self.discrete = self.spec.discrete
        self.kind: ActionKind = "discrete" if self.discrete else "continuous"
        self.counts = self.spec.counts
        self.size = self.spec.size
        low, high = _bounds(self.spec)
        self._unit = bool((low == -1).all() and (high == 1).all())
        self._center = tuple(((low + high) / 2).tolist())
        self._half = tuple(((high - low) / 2).tolist())
        self._low, self._high = tuple(low.tolist()), tuple(high.tolist())
        self._tensors: dict[tuple[float, ...], dict[torch.device, Tensor]] = {}

    def initial_mean(self, *lead: int, device: torch.device) -> Tensor:
        """The mean (*lead, A) that prefers nothing: the centre, or equal probabilities."""
        if not self.discrete:
            return torch.zeros(*lead, self.size, device=device)
        return self._on(tuple(1.0 / n for n in self.counts for _ in range(n)), device).expand(
            *lead, self.size
        )

    def sample(self, mean: Tensor, std: Tensor, noise: Tensor, mask: Tensor | None) -> Tensor:
        """Actions (..., A) from N(mean, std) or the categorical `mean`; `noise` is normal."""
        if not self.discrete:
            return self.project(mean + std * noise, mask)
        return self.project(mean.log() + gumbel(noise), mask)

    def uniform(self, noise: Tensor, mask: Tensor | None) -> Tensor:
        """Uniformly distributed actions from standard normal noise (..., A)."""
        if not self.discrete:
            return self.project(2 * torch.special.ndtr(noise) - 1, mask)
        return self.project(gumbel(noise), mask)

    def project(self, actions: Tensor, mask: Tensor | None) -> Tensor:
        """The nearest permitted action (..., A): clamped to the box, or the most preferred choice.

        `mask` (broadcastable to actions) is 0 where an action dimension stays at the centre of
        its range, or where a choice must not be taken.
        """
        if not self.discrete:
            bounded = actions.clamp(-1.0, 1.0)
            return bounded if mask is None else bounded * mask
        if mask is not None:
            actions = actions.masked_fill(mask == 0, -torch.inf)
        parts = actions.split(self.counts, -1)
        return torch.cat([_one_hot(part) for part in parts], -1)

    def refitted(
        self, mean: Tensor, std: Tensor, min_std: float, max_std: float, min_prob: float
    ) -> tuple[Tensor, Tensor]:
        """Mean and std (..., A) kept from collapsing: std clamped, chances mixed with uniform."""
        if not self.discrete:
            return mean, std.clamp(min_std, max_std)
        flat = self.initial_mean(*mean.shape[:-1], device=mean.device)
        return torch.lerp(mean, flat, min_prob), std

    def perturb(self, action: Tensor, scale: Tensor, noise: Tensor, mask: Tensor | None) -> Tensor:
        """Exploration (..., A): Gaussian noise of std `scale`, or a random choice as likely."""
        if not self.discrete:
            return self.sample(action, scale, noise, mask)
        flat = self.initial_mean(*action.shape[:-1], device=action.device)
        return self.sample(torch.lerp(action, flat, scale.clamp(0.0, 1.0)), scale, noise, mask)

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of an action as models take and propose it: the space's, or one-hot (A,)."""
        return (self.size,) if self.discrete else self.spec.shape

    def to_model(self, actions: Tensor) -> Tensor:
        """Search coordinates (..., A) to what models take, (..., *shape): in its real bounds."""
        if not self.discrete and not self._unit:
            device = actions.device
            real = self._on(self._center, device) + self._on(self._half, device) * actions
            actions = real.clamp(self._on(self._low, device), self._on(self._high, device))
        return actions.reshape(*actions.shape[:-1], *self.shape)

    def from_model(self, actions: Tensor) -> Tensor:
        """What models propose, (..., *shape), to search coordinates (..., A)."""
        lead = actions.shape[: actions.ndim - len(self.shape)]
        actions = actions.reshape(*lead, self.size)
        if self.discrete or self._unit:
            return actions
        half = self._on(self._half, actions.device)
        return (actions - self._on(self._center, actions.device)) / half.clamp_min(1e-12)

    def to_env(self, actions: Tensor) -> Tensor:
        """Search coordinates (..., A) to what `act` returns: (..., *shape), or int64 indices."""
        if not self.discrete:
            return self.to_model(actions)
        indices = torch.stack([part.argmax(-1) for part in actions.split(self.counts, -1)], -1)
        return indices.reshape(*actions.shape[:-1], *self.spec.shape)

    def _on(self, values: tuple[float, ...], device: torch.device) -> Tensor:
        found = self._tensors.setdefault(values, {})
        if device in found:
            return found[device]
        made = torch.tensor(values, device=device)
        if type(made) is Tensor:  # not one without data, of a trial run
            found[device] = made
        return made


def gumbel(noise: Tensor) -> Tensor:
    """Standard normal to standard Gumbel, elementwise and monotone."""
    return -(-torch.special.log_ndtr(noise)).log()


def _one_hot(preferences: Tensor) -> Tensor:
    best = preferences.argmax(-1, keepdim=True)
    return torch.zeros_like(preferences).scatter(-1, best, 1.0)


def _bounds(spec: TensorSpec) -> tuple[np.ndarray, np.ndarray]:
    """Flat lower and upper bounds (A,); [-1, 1] where the spec gives none."""
    if spec.discrete:
        return np.full(spec.size, -1.0), np.full(spec.size, 1.0)
    low = np.asarray(-1.0 if spec.low is None else spec.low, dtype=np.float64)
    high = np.asarray(1.0 if spec.high is None else spec.high, dtype=np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ContractError(
            "A planner needs finite action bounds with low <= high, "
            f"got low={spec.low}, high={spec.high}."
        )
    return np.broadcast_to(low, spec.shape).ravel(), np.broadcast_to(high, spec.shape).ravel()

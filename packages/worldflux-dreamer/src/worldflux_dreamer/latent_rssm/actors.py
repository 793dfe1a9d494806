"""Actors whose actions carry gradients: squashed and truncated normals, straight-through choices.

Actions here are flat float vectors (..., A): continuous values, or one-hots side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.rand import Rand, normal, uniform
from worldflux.specs import TensorSpec
from worldflux_dreamer.categorical import categorical_entropy, sample_index, straight_through
from worldflux_dreamer.latent_rssm.layers import dense, mlp

MODE_SAMPLES = 100
"""Samples of which a squashed normal's mode is the most likely."""
Kind = Literal["tanh_normal", "trunc_normal", "choices"]


@dataclass
class TanhNormal:
    """tanh of a diagonal normal (..., A) (1912.01603, section 3)."""

    mean: Tensor
    std: Tensor

    def sample(self, rand: Rand) -> Tensor:
        """Reparameterised samples (..., A), from the normal draw "action_noise" (..., A)."""
        shape, device = tuple(self.mean.shape), self.mean.device
        return self._squashed(rand.draw("action_noise", shape, normal, device=device))

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density (...) of actions within (-1, 1)."""
        raw = torch.atanh(action.clamp(-0.99999994, 0.99999994))
        z = (raw - self.mean) / self.std
        normal = -0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        slope = 2 * (math.log(2) - raw - F.softplus(-2 * raw))  # log(1 - tanh^2)
        return (normal - slope).sum(-1)

    def mode(self, rand: Rand) -> Tensor:
        """The most likely (B, A) of the samples that "action_noise" (B, samples, A) gives."""
        shape = (len(self.mean), MODE_SAMPLES, self.mean.shape[-1])
        noise = rand.draw("action_noise", shape, normal, device=self.mean.device)
        samples = self._squashed(noise.transpose(0, 1))  # (samples, B, A)
        best = self.log_prob(samples).argmax(0)  # (B,)
        return samples[best, torch.arange(len(best), device=best.device)]

    def _squashed(self, noise: Tensor) -> Tensor:
        return torch.tanh(self.mean + self.std * noise)


@dataclass
class TruncatedNormal:
    """A diagonal normal (..., A) cut to [-1, 1] (danijar/dreamerv2, dists.py)."""

    mean: Tensor
    std: Tensor

    def sample(self, rand: Rand) -> Tensor:
        """Samples (..., A) by the inverse distribution function of uniform "action_noise"."""
        shape, device = tuple(self.mean.shape), self.mean.device
        noise = rand.draw("action_noise", shape, uniform, device=device)
        low, high = self._bounds()
        share = (low + noise * (high - low)).clamp(1e-6, 1 - 1e-6)
        value = self.mean + self.std * math.sqrt(2) * torch.erfinv(2 * share - 1)
        inside = value.clamp(-1 + 1e-6, 1 - 1e-6)
        return value + (inside - value).detach()

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density (...) of actions (..., A)."""
        z = (action - self.mean) / self.std
        normal = -0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return (normal - self._mass().log()).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy (...), summed over action dimensions."""
        a, b = (-1 - self.mean) / self.std, (1 - self.mean) / self.std
        mass = self._mass()
        tails = (a * _density(a) - b * _density(b)) / (2 * mass)
        return (0.5 * math.log(2 * math.pi * math.e) + self.std.log() + mass.log() + tails).sum(-1)

    def mode(self, rand: Rand | None = None) -> Tensor:
        """The most likely action: the mean is inside."""
        return self.mean

    def _bounds(self) -> tuple[Tensor, Tensor]:
        scaled = [(edge - self.mean) / (self.std * math.sqrt(2)) for edge in (-1.0, 1.0)]
        low, high = (0.5 * (1 + torch.erf(edge)) for edge in scaled)
        return low, high

    def _mass(self) -> Tensor:
        low, high = self._bounds()
        return high - low


@dataclass
class Choices:
    """One or several choices as one-hots side by side, with straight-through gradients."""

    logits: tuple[Tensor, ...]

    def sample(self, rand: Rand) -> Tensor:
        """One-hots (..., A), from uniform "action_noise" (..., N), one number per choice."""
        like, hots = self.logits[0], []
        shape = (*like.shape[:-1], len(self.logits))
        noise = rand.draw("action_noise", shape, uniform, device=like.device)
        for i, logit in enumerate(self.logits):
            probs = torch.softmax(logit, -1)
            hots.append(straight_through(sample_index(probs, noise[..., i]), probs))
        return torch.cat(hots, -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log probability (...) of one-hots (..., A)."""
        parts = action.split([logit.shape[-1] for logit in self.logits], -1)
        logs = [torch.log_softmax(logit, -1) for logit in self.logits]
        return torch.stack([(p * log).sum(-1) for p, log in zip(parts, logs, strict=True)]).sum(0)

    def entropy(self) -> Tensor:
        """Entropy (...), summed over the choices."""
        logs = [torch.log_softmax(logit, -1) for logit in self.logits]
        return torch.stack([categorical_entropy(log) for log in logs]).sum(0)

    def mode(self, rand: Rand | None = None) -> Tensor:
        """The likeliest one-hots."""
        hots = [F.one_hot(logit.argmax(-1), logit.shape[-1]).float() for logit in self.logits]
        return torch.cat(hots, -1)


Policy = TanhNormal | TruncatedNormal | Choices


class Actor(nn.Module):
    """Features (..., F) to a distribution over flat actions."""

    def __init__(
        self,
        size_in: int,
        spec: TensorSpec,
        continuous: Literal["tanh_normal", "trunc_normal"],
        units: int,
        layers: int,
        activation: str,
        min_std: float,
        init_std: float = 0.0,
        mean_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.kind: Kind = "choices" if spec.discrete else continuous
        self.min_std, self.mean_scale = min_std, mean_scale
        self.raw_init = _before_softplus(init_std) if init_std else 0.0
        self.mlp = mlp(size_in, units, layers, activation)
        self.out = dense(units, spec.size if spec.discrete else 2 * spec.size)

    def forward(self, feat: Tensor) -> Policy:
        output = self.out(self.mlp(feat)).float()
        if self.kind == "choices":
            return Choices(output.split(self.spec.counts, -1))
        mean, raw = output.chunk(2, -1)
        if self.kind == "trunc_normal":
            return TruncatedNormal(torch.tanh(mean), 2 * torch.sigmoid(raw / 2) + self.min_std)
        mean = self.mean_scale * torch.tanh(mean / self.mean_scale)
        return TanhNormal(mean, F.softplus(raw + self.raw_init) + self.min_std)


def to_env(action: Tensor, spec: TensorSpec) -> Tensor:
    """Flat actions (..., A) as an environment takes them: indices, or values in [-1, 1]."""
    if not spec.discrete:
        return action.clamp(-1, 1).reshape(*action.shape[:-1], *spec.shape)
    best = [part.argmax(-1) for part in action.split(spec.counts, -1)]
    return best[0] if isinstance(spec.n, int) else torch.stack(best, -1)


def explored(action: Tensor, spec: TensorSpec, amount: float, rand: Rand) -> Tensor:
    """Actions (B, ...) with noise of std `amount`, or random with that probability.

    Draws: "explore", normal (B, ...) for continuous actions, uniform (B, N, 2) for N choices.
    """
    if not spec.discrete:
        noise = rand.draw("explore", tuple(action.shape), normal, device=action.device)
        return (action + amount * noise).clamp(-1, 1)
    shape = (len(action), len(spec.counts), 2)
    noise = rand.draw("explore", shape, uniform, device=action.device)
    counts = torch.tensor(spec.counts, device=action.device)
    other = (noise[..., 1] * counts).long().reshape(action.shape)
    return torch.where((noise[..., 0] < amount).reshape(action.shape), other, action)


def _density(x: Tensor) -> Tensor:
    """Standard normal density."""
    return torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)


def _before_softplus(value: float) -> float:
    """What softplus makes `value` of; exp(value) itself would overflow from 710 on."""
    return value + math.log(-math.expm1(-value))

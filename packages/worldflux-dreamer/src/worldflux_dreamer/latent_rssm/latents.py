"""Stochastic states: what a layer's output means, how it is sampled, how far two are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.rand import Rand, Sampler, normal, uniform
from worldflux_dreamer.categorical import categorical_kl, sample_index, straight_through
from worldflux_dreamer.latent_rssm.config import SizesConfig

Stats = dict[str, Tensor]
"""Parameters of a distribution over latents, by name, each (..., S) or (..., S, K)."""


class Latent(Protocol):
    """A kind of stochastic state; every leading shape is allowed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one latent."""

    @property
    def outputs(self) -> int:
        """Numbers a layer has to give for `stats`."""

    def stats(self, output: Tensor) -> Stats:
        """The distribution a layer's output (..., outputs) stands for."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise that one sample consumes."""

    @property
    def sampler(self) -> Sampler:
        """How that noise is distributed."""

    def sample(self, stats: Stats, noise: Tensor) -> Tensor:
        """Differentiable samples (..., *shape), from noise (..., *noise_shape)."""

    def mode(self, stats: Stats) -> Tensor:
        """The most likely latents (..., *shape)."""

    def kl(self, left: Stats, right: Stats) -> Tensor:
        """KL(left || right) (...) in nats."""


@dataclass(frozen=True)
class Gaussian:
    """Diagonal normal latents (..., S) (1811.04551, 1912.01603)."""

    size: int
    min_std: float
    squash: str

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def outputs(self) -> int:
        return 2 * self.size

    def stats(self, output: Tensor) -> Stats:
        mean, raw = output.float().chunk(2, -1)
        std = F.softplus(raw) if self.squash == "softplus" else 2 * torch.sigmoid(raw / 2)
        return {"mean": mean, "std": std + self.min_std}

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def sampler(self) -> Sampler:
        return normal

    def sample(self, stats: Stats, noise: Tensor) -> Tensor:
        return stats["mean"] + stats["std"] * noise

    def mode(self, stats: Stats) -> Tensor:
        return stats["mean"]

    def kl(self, left: Stats, right: Stats) -> Tensor:
        ratio = (left["std"] / right["std"]).square()
        shift = ((left["mean"] - right["mean"]) / right["std"]).square()
        return 0.5 * (ratio + shift - 1 - ratio.log()).sum(-1)


@dataclass(frozen=True)
class Categorical:
    """One-hot latents (..., S, K) with straight-through gradients (2010.02193, algorithm 1)."""

    groups: int
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.groups, self.classes)

    @property
    def outputs(self) -> int:
        return self.groups * self.classes

    def stats(self, output: Tensor) -> Stats:
        return {"logit": output.float().unflatten(-1, self.shape)}

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.groups,)

    @property
    def sampler(self) -> Sampler:
        return uniform

    def sample(self, stats: Stats, noise: Tensor) -> Tensor:
        """Samples from uniform noise (..., S); integers are the classes themselves."""
        probs = torch.softmax(stats["logit"], -1)
        index = sample_index(probs, noise) if noise.is_floating_point() else noise.long()
        return straight_through(index, probs)

    def mode(self, stats: Stats) -> Tensor:
        probs = torch.softmax(stats["logit"], -1)
        return straight_through(probs.argmax(-1), probs)

    def kl(self, left: Stats, right: Stats) -> Tensor:
        logs = [torch.log_softmax(stats["logit"], -1) for stats in (left, right)]
        return categorical_kl(*logs)


def make_latent(config: SizesConfig) -> Latent:
    """The latents of a configuration."""
    if config.latent == "gaussian":
        return Gaussian(config.stoch, config.min_std, config.std)
    return Categorical(config.stoch, config.classes)


def latent_noise(
    latent: Latent, lead: tuple[int, ...], device: torch.device, rand: Rand | None
) -> Tensor:
    """The draw "stoch" (*lead, *noise_shape) that samples of leading shape `lead` consume."""
    shape = (*lead, *latent.noise_shape)
    return (rand or Rand()).draw("stoch", shape, latent.sampler, device=device)


def detached(stats: Stats) -> Stats:
    """The same distribution without gradient."""
    return {key: value.detach() for key, value in stats.items()}

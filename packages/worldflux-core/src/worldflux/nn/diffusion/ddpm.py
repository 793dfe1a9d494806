"""Denoising diffusion in discrete steps (DDPM, DDIM): what the noise does, and going back.

The numbers of a schedule are computed in float64 and used in float32. Step t of a process is
0 .. T - 1; data x (B, C, Y, X) are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from worldflux.core.rand import Rand, normal
from worldflux.nn.diffusion.betas import Floats, respaced
from worldflux.nn.diffusion.edm import per_row
from worldflux.nn.diffusion.spacing import kept_steps
from worldflux.nn.diffusion.tables import Table, tables

Predicts = Literal["noise", "data"]
Variance = Literal["learned", "large", "small"]
Network = Callable[[Tensor, Tensor], Tensor]
"""Noisy data (B, C, Y, X) and steps (B,) of the original process to an output."""


@dataclass(frozen=True)
class Step:
    """What a network's output says of the step before: a normal, and the data (B, C, Y, X)."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    data: Tensor


@dataclass(frozen=True, eq=False)
class DDPM:
    """A process with `betas` (T,), taking the steps that `spacing` leaves (`kept_steps`).

    The network `predicts` the noise or the data; with a "learned" variance its output has twice
    the channels, the second half saying where between the smallest and the largest the logarithm
    of the variance lies (-1 to 1, not clamped).
    """

    original: Floats
    spacing: str = ""
    predicts: Predicts = "noise"
    variance: Variance = "learned"

    @cached_property
    def kept(self) -> list[int]:
        """The original step of each step."""
        return kept_steps(len(self.original), self.spacing)

    @cached_property
    def betas(self) -> Floats:
        """The betas (T,) of the steps that are taken."""
        return respaced(self.original, self.kept) if self.spacing else self.original

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Everything that follows from the betas, by name (T,)."""
        return tables(self.betas)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.betas)

    def at(self, name: str, t: Tensor, like: Tensor) -> Tensor:
        """Number `name` of steps t (B,), in float32, with the axes of `like` (B, ...)."""
        return per_row(self.tables[name].on(t.device)[t], like)

    def original_step(self, t: Tensor) -> Tensor:
        """Steps t (B,) as the network knows them."""
        return torch.as_tensor(self.kept, device=t.device)[t]

    # Forward: from data to noise

    def noisy(self, data: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The data (B, ...) with the noise (B, ...) of t (B,) steps."""
        clean = self.at("sqrt_clean", t, data) * data
        return clean + self.at("sqrt_noisy", t, data) * noise

    def forward_moments(self, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and log-variance (B, ...) of noisy data, given data (B, ...)."""
        mean = self.at("sqrt_clean", t, data) * data
        variance, log = self.at("noisy", t, data), self.at("log_noisy", t, data)
        return mean, variance.expand_as(data), log.expand_as(data)

    def posterior(self, data: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, ...), variance and log-variance (B, 1, ...) of step t - 1, given both ends."""
        mean = self.at("mean_data", t, x) * data + self.at("mean_noisy", t, x) * x
        return mean, self.at("posterior", t, x), self.at("log_posterior", t, x)

    # Backward: one step of what a network says

    def step_of(self, output: Tensor, x: Tensor, t: Tensor, clip: bool = False) -> Step:
        """The step before, as the network's output (B, C or 2C, Y, X) for x (B, C, Y, X) has it."""
        guess, log_variance = output, self._fixed_log_variance(t, x)
        if self.variance == "learned":
            guess, share = output.chunk(2, 1)
            share = (share + 1) / 2
            low, high = self.at("log_posterior", t, x), self.at("log_beta", t, x)
            log_variance = share * high + (1 - share) * low
        data = guess if self.predicts == "data" else self.data_from_noise(guess, x, t)
        if clip:
            data = data.clamp(-1, 1)
        mean = self.posterior(data, x, t)[0]
        variance = log_variance.exp() if self.variance == "learned" else self._fixed(t, x)
        return Step(mean, variance, log_variance, data)

    def _fixed(self, t: Tensor, x: Tensor) -> Tensor:
        return self.at("large" if self.variance == "large" else "posterior", t, x)

    def _fixed_log_variance(self, t: Tensor, x: Tensor) -> Tensor:
        return self.at("log_large" if self.variance == "large" else "log_posterior", t, x)

    def data_from_noise(self, noise: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The data (B, ...) in x (B, ...), given the noise in it (B, ...)."""
        return self.at("inverse_clean", t, x) * x - self.at("inverse_noisy", t, x) * noise

    def noise_from_data(self, data: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise (B, ...) in x (B, ...), given the data in it (B, ...)."""
        return (self.at("inverse_clean", t, x) * x - data) / self.at("inverse_noisy", t, x)

    # Sampling

    def ddpm_step(self, step: Step, t: Tensor, noise: Tensor) -> Tensor:
        """A sample (B, ...) of step t - 1 (B,); at t = 0 its mean."""
        going_on = per_row((t > 0).to(noise.dtype), noise)
        return step.mean + going_on * (0.5 * step.log_variance).exp() * noise

    def ddim_step(
        self, step: Step, x: Tensor, t: Tensor, noise: Tensor, eta: float = 0.0
    ) -> Tensor:
        """A sample (B, ...) of step t - 1 (B,) that keeps the noise found in x; eta 1 is DDPM's."""
        clean, before = self.at("clean", t, x), self.at("clean_before", t, x)
        sigma = eta * ((1 - before) / (1 - clean)).sqrt() * (1 - clean / before).sqrt()
        found = self.noise_from_data(step.data, x, t)
        mean = step.data * before.sqrt() + (1 - before - sigma.square()).sqrt() * found
        return mean + per_row((t > 0).to(noise.dtype), noise) * sigma * noise

    def ddim_back(self, step: Step, x: Tensor, t: Tensor) -> Tensor:
        """Step t + 1 (B, ...) of x (B, ...) at step t (B,), without randomness: into the noise."""
        found = self.noise_from_data(step.data, x, t)
        after = self.at("clean_after", t, x)
        return step.data * after.sqrt() + (1 - after).sqrt() * found

    def sample(
        self,
        network: Network,
        x: Tensor,
        *,
        ddim: bool = False,
        eta: float = 0.0,
        clip: bool = False,
        rand: Rand | None = None,
    ) -> list[Tensor]:
        """From noise x (B, C, Y, X) through all steps: what x became after each of them.

        Draws: "step" (B, C, Y, X) at each step (`rand.at`, counted from the noisiest), but for
        DDIM with eta 0.
        """
        rand, path = rand or Rand(), []
        for i, number in enumerate(reversed(range(self.steps))):
            t = torch.full((x.shape[0],), number, device=x.device)
            step = self.step_of(network(x, self.original_step(t)), x, t, clip)
            noise = torch.zeros_like(x)
            if not ddim or eta > 0:
                noise = rand.at(i).draw("step", tuple(x.shape), normal, device=x.device)
            x = self.ddim_step(step, x, t, noise, eta) if ddim else self.ddpm_step(step, t, noise)
            path.append(x)
        return path

"""Losses of discrete diffusion: the squared error, and the variational bound in bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from worldflux.nn.diffusion.ddpm import DDPM, Network

Objective = Literal["mse", "rescaled_mse", "rescaled_kl"]
_HALF_BIN = 1 / 255
_SMALLEST = 1e-12


def normal_kl(mean: Tensor, log_variance: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL divergence (...) in nats of one normal (...) from another (...)."""
    ratio = (log_variance - log_variance2).exp()
    distance = (mean - mean2).square() * (-log_variance2).exp()
    return 0.5 * (log_variance2 - log_variance - 1 + ratio + distance)


def normal_cdf(x: Tensor) -> Tensor:
    """The standard normal's distribution function (...), by the usual approximation with tanh."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def binned_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-likelihood (...) in nats of x (...), one of 256 levels in [-1, 1]; the ends are open."""
    off, inverse = x - mean, (-log_scale).exp()
    above = normal_cdf(inverse * (off + _HALF_BIN))
    below = normal_cdf(inverse * (off - _HALF_BIN))
    chance = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return chance.clamp(min=_SMALLEST).log()


def rows_mean(x: Tensor) -> Tensor:
    """The mean of each row, (B, ...) to (B,)."""
    return x.flatten(1).mean(1)


def bound_term(
    process: DDPM, output: Tensor, data: Tensor, x: Tensor, t: Tensor, clip: bool = True
) -> Tensor:
    """The bound's term (B,) of step t (B,), in bits for each number of the data (B, C, Y, X).

    The divergence of the network's step from the true one; at t = 0 the data's likelihood.
    """
    mean, _, log_variance = process.posterior(data, x, t)
    step = process.step_of(output, x, t, clip)
    own = step.log_variance.expand_as(data)
    kl = rows_mean(normal_kl(mean, log_variance.expand_as(data), step.mean, own))
    likelihood = rows_mean(binned_log_likelihood(data, step.mean, 0.5 * own))
    return torch.where(t == 0, -likelihood, kl) / math.log(2)


def prior_term(process: DDPM, data: Tensor) -> Tensor:
    """The bound's last term (B,), in bits: what is left of data (B, ...) at the noisiest step."""
    t = torch.full((data.shape[0],), process.steps - 1, device=data.device)
    mean, _, log_variance = process.forward_moments(data, t)
    zero = torch.zeros_like(mean)
    return rows_mean(normal_kl(mean, log_variance, zero, zero)) / math.log(2)


def losses(
    process: DDPM,
    output: Tensor,
    data: Tensor,
    x: Tensor,
    t: Tensor,
    noise: Tensor,
    objective: Objective = "mse",
) -> dict[str, Tensor]:
    """Named terms (B,) whose sum is to be minimised, for an output (B, C or 2C, Y, X).

    "mse" is the squared error, and with a learned variance the bound ("bound"), which moves the
    variance alone; "rescaled_mse" weighs that by T / 1000. "rescaled_kl" is the bound by itself,
    times T.
    """
    if objective == "rescaled_kl":
        return {"bound": process.steps * bound_term(process, output, data, x, t, clip=False)}
    terms, guess = {}, output
    if process.variance == "learned":
        guess, share = output.chunk(2, 1)
        frozen = torch.cat([guess.detach(), share], 1)
        bound = bound_term(process, frozen, data, x, t, clip=False)
        terms["bound"] = bound * (process.steps / 1000 if objective == "rescaled_mse" else 1)
    target = noise if process.predicts == "noise" else data
    terms["mse"] = rows_mean((target - guess).square())
    return terms


@dataclass(frozen=True)
class Bound:
    """The variational bound of data, in bits a number: its terms (B, T), the noisiest first."""

    total: Tensor
    prior: Tensor
    terms: Tensor
    data_error: Tensor
    noise_error: Tensor


@torch.no_grad()
def bound(
    process: DDPM, network: Network, data: Tensor, noises: Tensor, clip: bool = True
) -> Bound:
    """The whole bound of data (B, C, Y, X), with noises (T, B, C, Y, X), the noisiest first."""
    terms, data_error, noise_error = [], [], []
    for noise, number in zip(noises, reversed(range(process.steps)), strict=True):
        t = torch.full((data.shape[0],), number, device=data.device)
        x = process.noisy(data, t, noise)
        output = network(x, process.original_step(t))
        step = process.step_of(output, x, t, clip)
        terms.append(bound_term(process, output, data, x, t, clip))
        data_error.append(rows_mean((step.data - data).square()))
        noise_error.append(rows_mean((process.noise_from_data(step.data, x, t) - noise).square()))
    prior, found = prior_term(process, data), torch.stack(terms, 1)
    return Bound(found.sum(1) + prior, prior, found, torch.stack(data_error, 1),
                 torch.stack(noise_error, 1))  # fmt: skip

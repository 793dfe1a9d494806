"""DIAMOND's denoiser: the next frame (B, C, Y, X) out of noise, given frames and actions.

Frames are in [-1, 1], the history is (B, K, C, Y, X) with its actions (B, K, A); the oldest come
first, and the last action is the one taken at the last frame.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.rand import Rand, normal
from worldflux.distributed import mean
from worldflux.nn.diffusion import edm
from worldflux_diamond.diamond.blocks import Fourier, GroupNorm, conv3x3
from worldflux_diamond.diamond.config import DenoiserConfig
from worldflux_diamond.diamond.unet import UNet
from worldflux_diamond.diamond.windows import episode_windows


class FrameNetwork(Protocol):
    """What a denoiser is made of: scaled inputs to the output that EDM's target is for."""

    def __call__(self, noisy: Tensor, c_noise: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        """Noisy (B, C, Y, X), noise (B,), frames (B, K, C, Y, X), actions (B, K, A)."""


class UNetNetwork(nn.Module):
    """A U-Net over a noisy frame (B, C, Y, X) and its history, conditioned on noise and actions."""

    def __init__(self, config: DenoiserConfig, channels: int, action: int) -> None:
        super().__init__()
        c, first = config, config.channels[0]
        self.noise = Fourier(c.cond)
        self.action = nn.Linear(action, c.cond // c.history, bias=False)
        nn.init.normal_(self.action.weight)  # an embedding, of choices that come one-hot
        self.cond = nn.Sequential(nn.Linear(c.cond, c.cond), nn.SiLU(), nn.Linear(c.cond, c.cond))
        self.conv_in = conv3x3((c.history + 1) * channels, first)
        self.unet = UNet(c.cond, c.channels, c.depths, c.attention)
        self.norm_out, self.conv_out = GroupNorm(first), conv3x3(first, channels)
        nn.init.zeros_(self.conv_out.weight)

    def condition(self, c_noise: Tensor, actions: Tensor) -> Tensor:
        """The condition (B, D) of a noise level (B,) and actions (B, K, A)."""
        found: Tensor = self.cond(self.noise(c_noise) + self.action(actions).flatten(1))
        return found

    def forward(self, noisy: Tensor, c_noise: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        x = self.conv_in(torch.cat([frames.flatten(1, 2), noisy], 1))  # (B, C, Y, X)
        x = self.unet(x, self.condition(c_noise, actions))
        found: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return found


class Denoiser(nn.Module):
    """A network in EDM's scales: it denoises, samples, and says what it has to learn."""

    def __init__(self, config: DenoiserConfig, network: nn.Module) -> None:
        super().__init__()
        c = self.config = config
        self.network = network
        self.sigmas = edm.karras_sigmas(c.steps, c.sigma_min, c.sigma_max, c.rho)
        highest = math.inf if c.s_tmax is None else c.s_tmax
        self.churn = edm.Churn(c.s_churn, c.s_tmin, highest, c.s_noise)

    def conditioners(self, sigma: Tensor) -> edm.Conditioners:
        """The scales (B,) at noise levels sigma (B,), offset noise included."""
        return edm.conditioners(sigma, self.config.sigma_data, self.config.sigma_offset)

    def output(
        self, noisy: Tensor, by: edm.Conditioners, frames: Tensor, actions: Tensor
    ) -> Tensor:
        """What the network gives (B, C, Y, X) for a noisy frame (B, C, Y, X)."""
        scaled = edm.per_row(by.c_in, noisy) * noisy
        found: Tensor = self.network(scaled, by.c_noise, frames / self.config.sigma_data, actions)
        return found

    def denoise(self, noisy: Tensor, sigma: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        """The frame (B, C, Y, X) in a noisy one of level sigma (B,), as eight bits hold it."""
        by = self.conditioners(sigma)
        output = self.output(noisy, by, frames, actions)
        return edm.quantised(edm.denoised(output.float(), noisy, by))

    @torch.no_grad()
    def sample(
        self, noise: Tensor, frames: Tensor, actions: Tensor, rand: Rand | None = None
    ) -> list[Tensor]:
        """From noise (B, C, Y, X), which is N(0, 1), to a frame: all steps of the way.

        Draws: "churn" (B, C, Y, X), at each step that puts noise back.
        """
        return edm.sample(
            lambda x, sigma: self.denoise(x, sigma, frames, actions),
            noise,
            self.sigmas,
            order=self.config.order,
            churn=self.churn,
            rand=rand,
        )

    def noisy(self, frame: Tensor, rand: Rand) -> tuple[Tensor, Tensor]:
        """Frames (B, C, Y, X) with noise of levels that training takes, and those levels (B,).

        Draws: "sigma" (B,), "offset" (B, C, 1, 1), "noise" (B, C, Y, X).
        """
        c, device = self.config, frame.device
        eps = rand.draw("sigma", tuple(frame.shape[:1]), normal, device=device)
        sigma = edm.training_sigma(eps, c.loc, c.scale, c.train_sigma_min, c.train_sigma_max)
        shared = rand.draw("offset", (*frame.shape[:2], 1, 1), normal, device=device)
        noise = rand.draw("noise", tuple(frame.shape), normal, device=device)
        return frame + edm.per_row(sigma, frame) * noise + c.sigma_offset * shared, sigma

    def loss_step(
        self, frame: Tensor, frames: Tensor, actions: Tensor, rand: Rand
    ) -> tuple[Tensor, Tensor]:
        """Errors (B,) of the next frame (B, C, Y, X), and what the network makes of it, no grad."""
        noisy, sigma = self.noisy(frame, rand)
        by = self.conditioners(sigma)
        output = self.output(noisy, by, frames, actions).float()
        error = (output - edm.network_target(frame, noisy, by)).square().flatten(1).mean(1)
        return error, edm.quantised(edm.denoised(output.detach(), noisy, by))

    def loss(
        self,
        frames: Tensor,
        actions: Tensor,
        is_first: Tensor,
        context: int,
        mask: Tensor | None = None,
        rand: Rand | None = None,
    ) -> Tensor:
        """The mean error over frames (B, T, C, Y, X) after the first `context`, one by one.

        Each is predicted from the K before it, of which those after the context are the denoiser's
        own. Actions (B, T, A) were taken at the frames; is_first and mask are (B, T). What lies
        before an episode's first frame is zero. Draws as `noisy`, with an axis for the step first.
        """
        rand, errors = rand or Rand(), []
        seen = frames
        for i, t in enumerate(range(context, frames.shape[1])):
            past = episode_windows(seen, is_first, t, self.config.history)
            own = episode_windows(actions, is_first, t, self.config.history)
            error, made = self.loss_step(frames[:, t], past, own, rand.at(i))
            errors.append(mean(error, None if mask is None else mask[:, t]))
            seen = torch.cat([seen[:, :t], made[:, None], seen[:, t + 1 :]], 1)
        return torch.stack(errors).mean()

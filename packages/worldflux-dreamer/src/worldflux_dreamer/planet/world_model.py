"""PlaNet's world model: Gaussian RSSM on images of few bits, whose bins are filled with noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.interfaces import Draws
from worldflux.core.model import Observation
from worldflux.core.output import LossOutput
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.state import State
from worldflux_dreamer.ancestors.images import quantised
from worldflux_dreamer.ancestors.latents import Stats
from worldflux_dreamer.ancestors.world_model import LatentWorldModel
from worldflux_dreamer.networks import image_keys
from worldflux_dreamer.planet.losses import beyond_free_nats


class PlaNetWorldModel(LatentWorldModel):
    """State: "deter" (B, D), "stoch" (B, S); "mean", "std" of what it was drawn from.

    Draws: the dynamics', and "pixels/<key>", uniform noise of an image's shape. Where draws lack
    it, or `deterministic` is asked for, pixels lie in the middle of their bins.
    """

    def divergences(self, posterior: Stats, prior: Stats) -> dict[str, Tensor]:
        return {"kl": beyond_free_nats(self.latent.kl(posterior, prior), self.sizes.free_nats)}

    def loss(
        self,
        batch: Batch,
        *,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> LossOutput:
        self.validate_batch_contract(batch)
        batch = replace(batch, obs=self._filled(batch.obs, draws, generator))
        return super().loss(batch, draws=draws, generator=generator)

    def encode(
        self,
        obs: Observation,
        deterministic: bool = False,
        *,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        seen = self.observations(obs)
        seen = seen if deterministic else self._filled(seen, draws, generator)
        return super().encode(seen, deterministic, draws=draws, generator=generator)

    def observe(
        self,
        state: State,
        action: ActionPayload | Tensor,
        obs: Observation,
        is_first: Tensor,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        *,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        seen = self.observations(obs)
        seen = seen if deterministic else self._filled(seen, draws, generator)
        return super().observe(
            state,
            action,
            seen,
            is_first,
            conditions,
            deterministic,
            draws=draws,
            generator=generator,
        )

    def _filled(
        self, obs: Mapping[str, Tensor], draws: Draws | None, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Observations with their images cut to a few bits and dequantised, as floats."""
        filled = dict(obs)
        for key in image_keys(self.obs_spec):
            image, noise = obs[key], (draws or {}).get(f"pixels/{key}")
            if draws is None:
                noise = torch.rand(image.shape, device=image.device, generator=generator)
            filled[key] = quantised(image, self.sizes.bits, noise)
        return filled

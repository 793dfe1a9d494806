"""PlaNet's world model: Gaussian RSSM on images of few bits, whose bins are filled with noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.model import Observation
from worldflux.core.output import LossOutput
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.rand import Rand, uniform
from worldflux.core.state import State
from worldflux_dreamer.latent_rssm.images import quantised
from worldflux_dreamer.latent_rssm.latents import Stats
from worldflux_dreamer.latent_rssm.world_model import LatentWorldModel
from worldflux_dreamer.planet.losses import beyond_free_nats
from worldflux_dreamer.spaces import image_keys


class PlaNetWorldModel(LatentWorldModel):
    """State: "deter" (B, D), "stoch" (B, S); "mean", "std" of what it was drawn from.

    Draws: the dynamics', and "pixels/<key>", uniform noise of an image's shape. Where
    `deterministic` is asked for, pixels lie in the middle of their bins.
    """

    def divergences(self, posterior: Stats, prior: Stats) -> dict[str, Tensor]:
        return {"kl": beyond_free_nats(self.latent.kl(posterior, prior), self.sizes.free_nats)}

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        self.validate_batch_contract(batch)
        return super().loss(replace(batch, obs=self._filled(batch.obs, rand)), part, rand=rand)

    def encode(
        self,
        obs: Observation,
        deterministic: bool = False,
        *,
        rand: Rand | None = None,
    ) -> State:
        seen = self.observations(obs)
        seen = seen if deterministic else self._filled(seen, rand)
        return super().encode(seen, deterministic, rand=rand)

    def observe(
        self,
        state: State,
        action: ActionPayload | Tensor | None,
        obs: Observation,
        is_first: Tensor,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        *,
        rand: Rand | None = None,
    ) -> State:
        seen = self.observations(obs)
        seen = seen if deterministic else self._filled(seen, rand)
        return super().observe(
            state,
            action,
            seen,
            is_first,
            conditions,
            deterministic,
            rand=rand,
        )

    def _filled(self, obs: Mapping[str, Tensor], rand: Rand | None) -> dict[str, Tensor]:
        """Observations with their images cut to a few bits and dequantised, as floats."""
        filled, rand = dict(obs), (rand or Rand()).under("pixels/")
        for key in image_keys(self.obs_spec):
            image = obs[key]
            noise = rand.draw(key, tuple(image.shape), uniform, device=image.device)
            filled[key] = quantised(image, self.sizes.bits, noise)
        return filled

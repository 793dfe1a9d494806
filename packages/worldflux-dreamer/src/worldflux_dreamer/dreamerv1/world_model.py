"""DreamerV1's world model: Gaussian RSSM, one KL whose batch mean has free nats."""

from __future__ import annotations

from torch import Tensor

from worldflux_dreamer.latent_rssm.latents import Stats
from worldflux_dreamer.latent_rssm.losses import freed
from worldflux_dreamer.latent_rssm.world_model import DiscountedWorldModel


class DreamerV1WorldModel(DiscountedWorldModel):
    """State: "deter" (B, D), "stoch" (B, S); "mean", "std" of what it was drawn from."""

    loss_spans_batch = True  # by the free nats

    def divergences(self, posterior: Stats, prior: Stats) -> dict[str, Tensor]:
        return {"kl": self.latent.kl(posterior, prior)}

    def freed(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        return freed(means, ("kl",), self.sizes.free_nats)

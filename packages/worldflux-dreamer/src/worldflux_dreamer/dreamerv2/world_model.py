"""DreamerV2's world model: categorical RSSM with a balanced KL."""

from __future__ import annotations

from worldflux_dreamer.dreamerv2.config import DreamerV2Config
from worldflux_dreamer.latent_rssm.world_model import BalancedKL, DiscountedWorldModel


class DreamerV2WorldModel(BalancedKL, DiscountedWorldModel):
    """State: "deter" (B, D), "stoch" (B, S, K) one-hot; "logit" of what it was drawn from."""

    config: DreamerV2Config

    @property
    def balance(self) -> float:
        """alpha, the share of the KL that trains the prior."""
        return self.config.model.balance

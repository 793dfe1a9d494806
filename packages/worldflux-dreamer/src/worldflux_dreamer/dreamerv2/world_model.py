"""DreamerV2's world model: categorical RSSM with a balanced KL."""

from __future__ import annotations

from dataclasses import replace

from worldflux.core.batch import Batch
from worldflux_dreamer.ancestors.world_model import BalancedKL, DiscountedWorldModel
from worldflux_dreamer.dreamerv2.config import DreamerV2Config
from worldflux_dreamer.dreamerv2.losses import transformed_reward


class DreamerV2WorldModel(BalancedKL, DiscountedWorldModel):
    """State: "deter" (B, D), "stoch" (B, S, K) one-hot; "logit" of what it was drawn from."""

    config: DreamerV2Config

    def targets(self, batch: Batch) -> Batch:
        data = super().targets(batch)
        return replace(
            data, reward=transformed_reward(data.require("reward"), self.config.model.rewards)
        )

    @property
    def balance(self) -> float:
        """alpha, the share of the KL that trains the prior."""
        return self.config.model.balance

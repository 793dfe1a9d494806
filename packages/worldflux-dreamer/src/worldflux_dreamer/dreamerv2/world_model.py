"""DreamerV2's world model: categorical RSSM with a balanced KL."""

from __future__ import annotations

from dataclasses import replace

from worldflux.core.batch import Batch
from worldflux_dreamer.ancestors.world_model import BalancedKL, DiscountedWorldModel
from worldflux_dreamer.dreamerv2.config import DreamerV2Config
from worldflux_dreamer.dreamerv2.losses import transformed_reward
from worldflux_dreamer.sequences import Sequences


class DreamerV2WorldModel(BalancedKL, DiscountedWorldModel):
    """State: "deter" (B, D), "stoch" (B, S, K) one-hot; "logit" of what it was drawn from."""

    config: DreamerV2Config

    def sequences(self, batch: Batch) -> Sequences:
        data = super().sequences(batch)
        return replace(data, reward=transformed_reward(data.reward, self.config.model.rewards))

    @property
    def balance(self) -> float:
        """alpha, the share of the KL that trains the prior."""
        return self.config.model.balance

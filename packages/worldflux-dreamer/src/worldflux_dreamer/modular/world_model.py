"""The modular RSSM: an encoder, a dynamics and a decoder of your choice around one latent."""

from __future__ import annotations

from collections.abc import Mapping

from worldflux.core.interfaces import Decoder, DynamicsModel
from worldflux.specs import TensorSpec
from worldflux_dreamer.latent_rssm.config import SizesConfig
from worldflux_dreamer.latent_rssm.networks import Encoder
from worldflux_dreamer.latent_rssm.rssm import RSSM
from worldflux_dreamer.latent_rssm.world_model import BalancedKL, LatentWorldModel
from worldflux_dreamer.modular.config import ModularConfig
from worldflux_dreamer.modular.dynamics import TransformerDynamics
from worldflux_dreamer.modular.networks import ModularDecoder, ModularEncoder


class ModularWorldModel(BalancedKL, LatentWorldModel):
    """State: "deter" (B, D), "stoch", its stats, and what the dynamics remembers besides."""

    config: ModularConfig

    def make_encoder(self, sizes: SizesConfig, obs_spec: Mapping[str, TensorSpec]) -> Encoder:
        return ModularEncoder(sizes, obs_spec)

    def make_dynamics(self, sizes: SizesConfig, action_size: int, embed: int) -> DynamicsModel:
        c = self.config.model
        if c.dynamics == "transformer":
            return TransformerDynamics(c, action_size, embed)
        return RSSM(sizes, c.dynamics, action_size, embed)

    def make_decoder(self, sizes: SizesConfig, obs_spec: Mapping[str, TensorSpec]) -> Decoder:
        return ModularDecoder(sizes, obs_spec, self.latent.shape)

    @property
    def balance(self) -> float:
        """Share of the KL that trains the prior."""
        return self.config.model.balance

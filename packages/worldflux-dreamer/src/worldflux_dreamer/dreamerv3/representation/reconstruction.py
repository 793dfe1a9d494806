"""Learn latents by drawing the observation from them: DreamerV3 as published."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.output import ModelOutput
from worldflux.specs import TensorSpec
from worldflux_dreamer import shared_losses
from worldflux_dreamer.dreamerv3 import losses
from worldflux_dreamer.dreamerv3.config import ModelConfig
from worldflux_dreamer.dreamerv3.representation.base import Representation


class Reconstruction(Representation):
    """One term per observation: squared error on images and symlog vectors, CE on choices."""

    decodes = True

    def __init__(
        self, config: ModelConfig, obs_spec: Mapping[str, TensorSpec], feat: int, embed: int
    ) -> None:
        super().__init__()
        self.obs_spec, self.scale = dict(obs_spec), config.scale_rec

    def scales(self) -> dict[str, float]:
        """Weight of every term by its name."""
        return {key: self.scale for key in self.obs_spec}

    def forward(
        self, feat: Tensor, embed: Tensor, output: ModelOutput, data: Batch
    ) -> dict[str, Tensor]:
        """Terms (B, T) by name."""
        return {
            key: reconstruction_loss(output, key, data.obs[key], spec)
            for key, spec in self.obs_spec.items()
        }


def reconstruction_loss(output: ModelOutput, key: str, target: Tensor, spec: TensorSpec) -> Tensor:
    """Loss (...) of one observation: squared error on images and symlog vectors, CE on choices."""
    if len(spec.shape) == 3:
        return losses.image_loss(output.predictions[key], target)
    lead = target.shape[: target.ndim - len(spec.shape)]
    if not spec.discrete:
        return losses.vector_loss(output.aux[key], target.reshape(*lead, -1))
    return shared_losses.choice_loss(output.aux[key], target.reshape(*lead, -1), spec.counts)

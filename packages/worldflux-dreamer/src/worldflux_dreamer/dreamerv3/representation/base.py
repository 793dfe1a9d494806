"""What a representation loss is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from worldflux.core.batch import Batch
from worldflux.core.output import ModelOutput


class Representation(nn.Module, ABC):
    """What latents are learned by beside the KL, made as `Class(config, obs_spec, feat, embed)`.

    `feat` and `embed` are the sizes of the latent features and of the encoder's embeddings.
    """

    decodes: ClassVar[bool] = False
    """Whether it needs the decoder's observations."""
    spans_batch: ClassVar[bool] = False
    """Whether it compares rows and steps of the batch with each other."""

    @abstractmethod
    def scales(self) -> dict[str, float]:
        """Weight of every term by its name."""

    @abstractmethod
    def forward(
        self, feat: Tensor, embed: Tensor, output: ModelOutput, data: Batch
    ) -> dict[str, Tensor]:
        """Terms (B, T) by name, of features and embeddings (B, T, ...)."""

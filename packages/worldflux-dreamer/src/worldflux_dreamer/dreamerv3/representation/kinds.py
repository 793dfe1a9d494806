"""The representation losses by name, as `model.representation` chooses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from worldflux.errors import ConfigError, did_you_mean
from worldflux.specs import TensorSpec
from worldflux_dreamer.dreamerv3.config import ModelConfig
from worldflux_dreamer.dreamerv3.representation.base import Representation
from worldflux_dreamer.dreamerv3.representation.contrastive import Contrast
from worldflux_dreamer.dreamerv3.representation.r2 import RedundancyReduction
from worldflux_dreamer.dreamerv3.representation.reconstruction import Reconstruction

MakeRepresentation = Callable[[ModelConfig, Mapping[str, TensorSpec], int, int], Representation]
KINDS: dict[str, MakeRepresentation] = {
    "reconstruction": Reconstruction,
    "r2": RedundancyReduction,
    "contrastive": Contrast,
}
"""Put your own class here under its name; a saved model holds the name, never code."""


def make_representation(
    config: ModelConfig, obs_spec: Mapping[str, TensorSpec], feat: int, embed: int
) -> Representation:
    """The loss that the configuration names."""
    name = config.representation
    if name not in KINDS:
        raise ConfigError(
            f"model.representation={name!r} is no known loss.{did_you_mean(name, KINDS)} "
            f"Known: {', '.join(KINDS)}. One of your own is added to "
            "worldflux_dreamer.dreamerv3.representation.kinds.KINDS before the model is made."
        )
    return KINDS[name](config, obs_spec, feat, embed)

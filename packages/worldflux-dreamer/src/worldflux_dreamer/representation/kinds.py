"""The representation losses by name, as `model.representation` chooses them."""

from __future__ import annotations

from worldflux_dreamer.representation.contrastive import Contrast
from worldflux_dreamer.representation.r2 import RedundancyReduction
from worldflux_dreamer.representation.reconstruction import Reconstruction

Representation = Reconstruction | RedundancyReduction | Contrast
KINDS: dict[str, type[Representation]] = {
    "reconstruction": Reconstruction,
    "r2": RedundancyReduction,
    "contrastive": Contrast,
}

"""How ring can be configured."""

from pydantic import PositiveInt

from worldflux.config import Config


class RingConfig(Config):
    """Sizes of the networks."""

    units: PositiveInt = 32
    """Width of the hidden layers."""


PRESETS = {"small": RingConfig(), "large": RingConfig(units=256)}

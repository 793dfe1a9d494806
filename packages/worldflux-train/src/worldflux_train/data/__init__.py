"""Data on disk as sources of batches: opening it, reading ahead, mixing it with a replay."""

from worldflux_train.data.ahead import ReadAhead
from worldflux_train.data.held_out import (
    evaluated_on_held_out,
    held_out_episodes,
    require_held_out,
    row_of,
)
from worldflux_train.data.mixture import Mixture
from worldflux_train.data.opened import Opened, open_data

__all__ = [
    "Mixture",
    "Opened",
    "ReadAhead",
    "evaluated_on_held_out",
    "held_out_episodes",
    "open_data",
    "require_held_out",
    "row_of",
]  # fmt: skip

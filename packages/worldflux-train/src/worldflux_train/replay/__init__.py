"""Steps kept for training, and the sequences drawn from them."""

from worldflux_train.replay.lanes import Lanes
from worldflux_train.replay.offline import load_episodes
from worldflux_train.replay.replay import Replay
from worldflux_train.replay.slices import Slices
from worldflux_train.replay.snapshot import prune

__all__ = ["Lanes", "Replay", "Slices", "load_episodes", "prune"]

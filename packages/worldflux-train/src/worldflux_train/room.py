"""Whether a run's replay has room for the sequences that its phases sample."""

from __future__ import annotations

from worldflux.errors import ConfigError
from worldflux.training import TrainingPlan
from worldflux_train.replay.replay import Replay


def require_room(replay: Replay, plan: TrainingPlan, envs: int) -> None:
    """`ConfigError` if a phase's sequences are longer than what is kept of each environment."""
    size = replay.lanes.size
    for phase in plan.phases:
        if phase.total > size:
            raise ConfigError(
                f"train.replay_capacity={replay.capacity} holds {size} steps of each of {envs} "
                f"environments, but phase {phase.name!r} samples sequences of {phase.total}. "
                "Raise it."
            )

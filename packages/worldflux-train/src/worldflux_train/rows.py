"""Rows of metrics of a run: what is in them, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from worldflux_train.clock import Clock
from worldflux_train.collector import Collector
from worldflux_train.config import RunConfig
from worldflux_train.memory import memory_row
from worldflux_train.meters import Meters
from worldflux_train.pace import Pace
from worldflux_train.replay.replay import Replay
from worldflux_train.schedule import Schedule
from worldflux_train.sinks.base import ShowsVideos, Sink


class Rows:
    """Writes rows to the sinks of a run: every one has its tick and the memory taken."""

    def __init__(
        self,
        config: RunConfig,
        clock: Clock,
        schedule: Schedule,
        meters: Meters,
        pace: Pace,
        replay: Replay | None,
        collector: Collector | None,
        device: torch.device,
    ) -> None:
        self.config, self.clock, self.schedule = config, clock, schedule
        self.meters, self.pace = meters, pace
        self.replay, self.collector, self.device = replay, collector, device
        self.sinks: list[Sink] = []

    def log(self, before: int, steps: int, final: bool = False) -> None:
        """The row of an interval of a run that ends at `steps`.

        The final one, of the run's end, leaves a longer run as it would be. `before` is the tick
        from which on evaluations are still to come.
        """
        means = self.meters.read()
        if not final:
            self.meters.clear()
        clock, updates = self.clock, self.schedule.updates
        last_tick = max(clock.step, steps) + clock.bursts + self.schedule.bursts_left(steps)
        self.write(
            {
                "step": clock.step,
                "agent_steps": clock.agent_steps,
                **self._collected(),
                "updates": updates,
                **{f"train/{name}": value for name, value in means.items()},
                **self.pace.row(clock, updates, last_tick, before),
                **({"final": True} if final else {}),
            }
        )
        self.pace.mark(clock, updates)

    def write(self, row: Mapping[str, Any]) -> None:
        """One row, to every sink."""
        held = memory_row(self.device)
        for sink in self.sinks:
            sink.write({"tick": row["step"] + self.clock.bursts, **row, **held})

    def show(self, videos: Mapping[str, Any]) -> None:
        """Videos (T, Y, X, 3) of an evaluation by name, to every sink that shows some."""
        for sink in self.sinks:
            if isinstance(sink, ShowsVideos):
                sink.show(videos, self.clock.tick)

    def close(self) -> None:
        """The run is over."""
        for sink in self.sinks:
            sink.close()

    def _collected(self) -> dict[str, Any]:
        if self.replay is None or self.collector is None:
            return {}
        repeat = int(self.config.env_options.get("action_repeat", 1))
        repeat *= self.collector.stepper.frames_per_step
        return {
            "frames": self.clock.agent_steps * repeat,
            "episodes": self.clock.episodes,
            "replay": len(self.replay),
        }

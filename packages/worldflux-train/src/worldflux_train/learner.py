"""Does the updates that are due: sample, update, write back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from worldflux.core.agent import Learner as LearningModule
from worldflux.core.rand import Rand
from worldflux.training import Phase
from worldflux_train.meters import Meters
from worldflux_train.replay.replay import Replay

Metrics = Mapping[str, Tensor | float]


class Learner:
    """Updates one agent from one replay; everything random comes from `rand` and the replay."""

    def __init__(
        self,
        agent: LearningModule,
        replay: Replay,
        rand: Rand,
        device: torch.device,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        self.agent = agent
        self.replay = replay
        self.rand = rand
        self.device = device
        agent.precision = precision
        self.meters = Meters()

    def learn(
        self, phase: Phase, done: int, updates: int, after: Callable[[Metrics], None]
    ) -> None:
        """`updates` updates of `phase` after `done` ones; `after` gets each one's metrics."""
        for update in range(done, done + updates):
            batch = self.replay.read(self.replay.choose(phase, update))
            result = self.agent.update(batch, phase.name, rand=self.rand)
            if result.replay_writes and batch.index is not None:
                self.replay.write(batch.index[:, phase.context :], result.replay_writes)
            self.meters.add(result.metrics)
            after(result.metrics)

"""Does the updates that are due: sample, update, write back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from worldflux.core.agent import Learner as LearningModule
from worldflux.training import Phase
from worldflux_train.meters import Meters
from worldflux_train.replay.replay import Replay

Metrics = Mapping[str, Tensor | float]


class Learner:
    """Updates one agent from one replay; everything random comes from the two generators."""

    def __init__(
        self,
        agent: LearningModule,
        replay: Replay,
        generator: torch.Generator,
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        self.agent = agent
        self.replay = replay
        self.generator = generator
        self.device = device
        self.bf16 = precision == "bf16"
        self.meters = Meters()

    def learn(self, phase: Phase, updates: int, after: Callable[[Metrics], None]) -> None:
        """`updates` updates of `phase`; `after` is called with each one's metrics."""
        for _ in range(updates):
            batch = self.replay.sample(phase.batch, phase.length, phase.context, phase.boundary)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                result = self.agent.update(batch, phase.name, generator=self.generator)
            if result.replay_writes and batch.index is not None:
                self.replay.write(batch.index[:, phase.context :], result.replay_writes)
            self.meters.add(result.metrics)
            after(result.metrics)

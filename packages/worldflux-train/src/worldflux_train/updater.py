"""Does the updates that are due: sample, update, write back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from worldflux.core.agent import Learner
from worldflux.core.rand import Rand
from worldflux.core.source import Source
from worldflux.hub import load_into
from worldflux.runs import AGENT
from worldflux.training import Phase
from worldflux_train.meters import Meters
from worldflux_train.parts import generator_of, read_tensors, write_tensors

Metrics = Mapping[str, Tensor | float]
OPTIMIZERS, GENERATOR = "optimizers.safetensors", "updater.safetensors"


class Updater:
    """Updates one learner from one source; everything random comes from `rand` and the source."""

    def __init__(
        self,
        agent: Learner,
        source: Source,
        rand: Rand,
        device: torch.device,
    ) -> None:
        self.agent = agent
        self.source = source
        self.rand = rand
        self.device = device
        self.meters = Meters()

    def learn(
        self, phase: Phase, done: int, updates: int, after: Callable[[Metrics], None]
    ) -> None:
        """`updates` updates of `phase` after `done` ones; `after` gets each one's metrics."""
        if done == 0 and updates > 0:
            self.agent.begin(phase.name, self.source, self.rand)
        for update in range(done, done + updates):
            batch = self.source.read(self.source.choose(phase, update))
            result = self.agent.update(batch, phase.name, rand=self.rand)
            if result.replay_writes and batch.index is not None:
                self.source.write(batch.index[:, phase.context :], result.replay_writes)
            self.meters.add(result.metrics)
            after(result.metrics)

    def save(self, folder: Path) -> None:
        """Write the agent, its optimisers, the generator and the running means."""
        self.agent.save_pretrained(folder / AGENT)
        write_tensors(folder / OPTIMIZERS, self.agent.training_state())
        write_tensors(folder / GENERATOR, {"generator": generator_of(self.rand).get_state()})
        self.meters.save(folder)

    def load(self, folder: Path) -> None:
        """Take over what was saved."""
        load_into(self.agent, folder / AGENT)
        self.agent.load_training_state(read_tensors(folder / OPTIMIZERS))
        generator_of(self.rand).set_state(read_tensors(folder / GENERATOR)["generator"])
        self.meters.load(folder, self.device)

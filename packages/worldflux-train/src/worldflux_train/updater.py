"""Does the updates that are due: sample, update, write back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from worldflux import distributed
from worldflux.core.agent import Learner
from worldflux.core.rand import Rand
from worldflux.core.source import Source
from worldflux.hub import load_into
from worldflux.runs import AGENT
from worldflux.training import Phase
from worldflux_train.meters import Meters
from worldflux_train.part_warnings import UntrainedParts
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
        self._untrained = UntrainedParts(agent)

    def learn(
        self, phase: Phase, done: int, updates: int, after: Callable[[Metrics], None]
    ) -> None:
        """`updates` updates of `phase` after `done` ones; `after` gets each one's metrics."""
        if done == 0 and updates > 0:
            self.agent.begin(phase.name, self.source, self.rand)
            distributed.broadcast(self.agent.state_dict().values())  # of sources of their own
        for update in range(done, done + updates):
            batch = self.source.read(self.source.choose(phase, update))
            result = self.agent.update(batch, phase.name, rand=self.rand)
            self._untrained.after(phase.name)
            if result.replay_writes and batch.index is not None:
                self.source.write(batch.index[:, phase.context :], result.replay_writes)
            self.meters.add(result.metrics)
            after(result.metrics)

    def save(self, folder: Path) -> None:
        """Write the agent, its optimisers, the generator and the running means."""
        self.agent.save_pretrained(folder / AGENT)
        write_tensors(folder / OPTIMIZERS, self.agent.training_state())
        write_tensors(folder / GENERATOR, {k: g.get_state() for k, g in self._generators().items()})
        self.meters.save(folder)

    def load(self, folder: Path) -> None:
        """Take over what was saved."""
        load_into(self.agent, folder / AGENT)
        self.agent.load_training_state(read_tensors(folder / OPTIMIZERS))
        saved = read_tensors(folder / GENERATOR)
        for name, generator in self._generators().items():
            generator.set_state(saved[name])
        self.meters.load(folder, self.device)

    def _generators(self) -> dict[str, torch.Generator]:
        """What is drawn from: the rank's own, and in a distributed run one that all share."""
        found = {"generator": generator_of(self.rand)}
        if self.rand.shared_generator is not None:
            found["shared"] = self.rand.shared_generator
        return found

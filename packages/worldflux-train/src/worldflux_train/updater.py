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
from worldflux.core.training_state import carried, load_carried
from worldflux.hub import load_into
from worldflux.runs import AGENT
from worldflux.training import Phase
from worldflux_train.meters import Meters
from worldflux_train.part_warnings import UntrainedParts
from worldflux_train.parts import generator_of, read_tensors, write_tensors

Metrics = Mapping[str, Tensor | float]
OPTIMIZERS, GENERATOR, CARRIED = (
    f"{name}.safetensors" for name in ("optimizers", "updater", "carry")
)


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
        """Write the agent and its optimisers, which all ranks have alike."""
        self.agent.save_pretrained(folder / AGENT)
        write_tensors(folder / OPTIMIZERS, self.agent.training_state())

    def save_own(self, folder: Path) -> None:
        """Write what each rank has of its own: the generator, the carry and the running means."""
        write_tensors(folder / GENERATOR, {k: g.get_state() for k, g in self._generators().items()})
        self.meters.save(folder)
        if distributed.rank():  # rank 0's is part of the training state
            write_tensors(folder / CARRIED, carried(self.agent))

    def load(self, folder: Path) -> None:
        """Take over what `save` wrote."""
        load_into(self.agent, folder / AGENT)
        self.agent.load_training_state(read_tensors(folder / OPTIMIZERS))

    def load_own(self, folder: Path) -> None:
        """Take over what `save_own` wrote, after `load`."""
        if distributed.rank():
            load_carried(self.agent, read_tensors(folder / CARRIED))
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

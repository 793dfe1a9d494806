"""What every sketch is put through: each phase on real segments, its weights kept in sight."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.columns import ACTION, FLAGS, REWARD, Columns
from worldflux.core.agent import Learner
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.output import UpdateResult
from worldflux.core.rand import Rand
from worldflux.core.source import Source
from worldflux.episodes import Episode
from worldflux.testing.batches import random_values

Results = dict[str, list[UpdateResult]]


def random_episode(columns: Columns, rows: int, seed: int) -> Episode:
    """An episode of noise; one with an odd seed ends by termination."""
    rand, step = Rand.seeded(seed), np.arange(rows)
    episode: Episode = {
        name: random_values(spec, (rows,), rand).numpy().astype(spec.dtype)
        for name, spec in columns.items()
        if name not in FLAGS
    }
    last = step == rows - 1
    episode |= dict(zip(FLAGS, (step == 0, last, last & bool(seed % 2)), strict=True))
    if REWARD in episode:
        episode[REWARD][0] = 0
    if ACTION in episode:
        episode[ACTION][-1] = 0
    return episode


@pytest.fixture
def source_of() -> Callable[..., EpisodeSource]:
    """A source over random episodes that hold what a learner's steps must hold."""

    def make(learner: Learner, lengths: tuple[int, ...] = (9, 14, 7, 12)) -> EpisodeSource:
        columns = learner.columns
        made = [random_episode(columns, rows, seed) for seed, rows in enumerate(lengths)]
        return EpisodeSource(made, columns)

    return make


def _snapshot(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learner.state_dict().items()}


def _allowed(learner: Learner, trains: tuple[str, ...], follows: tuple[str, ...]) -> set[str]:
    """Names of `state_dict` that a phase may move."""
    groups = [group for name in trains for group in learner.optimizers[name].param_groups]
    own = {id(parameter) for group in groups for parameter in group["params"]}
    trained = {name for name, parameter in learner.named_parameters() if id(parameter) in own}
    return trained | {name for name in learner.state_dict() if name.startswith(tuple(follows))}


@pytest.fixture
def train_phases() -> Callable[[Learner, Source], Results]:
    """Two updates of every phase, in order: each moves what it trains and follows, and no more."""

    def run(learner: Learner, source: Source) -> Results:
        found: Results = {}
        rand = Rand.seeded(0)
        for phase in learner.training_plan().phases:
            assert source.ready(phase), phase
            learner.begin(phase.name, source, rand)
            before = _snapshot(learner)
            found[phase.name] = []
            for update in range(2):
                batch = source.read(source.choose(phase, update))
                batch.validate()
                assert batch.batch_size == phase.batch and batch.length == phase.total
                found[phase.name].append(learner.update(batch, phase.name, rand=rand))
            after = learner.state_dict()
            moved = {name for name, old in before.items() if not torch.equal(old, after[name])}
            allowed = _allowed(learner, phase.trains, phase.follows)
            assert moved and moved <= allowed, (phase.name, sorted(moved - allowed))
            for prefix in phase.follows:
                assert any(name.startswith(prefix) for name in moved), (phase.name, prefix)
            for result in found[phase.name]:
                for name, value in result.metrics.items():
                    assert bool(torch.isfinite(torch.as_tensor(value))), (phase.name, name)
        return found

    return run

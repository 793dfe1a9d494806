"""The model's loss on held-out data, of the phases that train the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from worldflux.core.agent import Learner
from worldflux.core.evaluation import Evaluation
from worldflux.core.rand import Rand
from worldflux.core.source import Source


@torch.no_grad()
def judged(
    learner: Learner, phases: Iterable[str], source: Source, rand: Rand | None, limit: int
) -> Evaluation:
    """Means of the loss of each of `phases` over at most `limit` batches."""
    found: dict[str, float] = {}
    for name in phases:
        phase = learner.training_plan().phase(name)
        losses = []
        for update in range(limit if source.ready(replace(phase, minimum=1)) else 0):
            batch = source.read(source.choose(phase, update))
            with learner.autocast():
                losses.append(learner.world_model.loss(batch, name, rand=rand).loss.float())
        if losses:
            found[f"loss/{name}"] = float(torch.stack(losses).mean())
    return Evaluation(metrics=found)

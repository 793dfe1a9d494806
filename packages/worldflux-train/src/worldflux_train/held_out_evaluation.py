"""A run without an environment is evaluated on its held-out data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from worldflux.core.agent import Learner
from worldflux.core.rand import Rand
from worldflux.runs import Run
from worldflux_train.data import evaluated_on_held_out, row_of
from worldflux_train.evaluation_pictures import save_pictures
from worldflux_train.inputs import Inputs
from worldflux_train.seeding import derived


def evaluate_and_save(
    learner: Learner,
    inputs: Inputs,
    run: Run,
    tick: int,
    device: torch.device,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[dict[str, Any], float | None]:
    """Metrics and score on held-out data; pictures are saved in the run as those of `tick`.
    `tell` hears how many of how many batches were read.

    No metrics and no score where no data is held out.
    """
    settings = inputs.config.train
    assert inputs.data is not None, "a run without an environment is on data"
    rand = Rand.seeded(derived(settings.seed, "evaluation", tick), device)
    found = evaluated_on_held_out(learner, inputs.data, rand, device, settings.eval_batches, tell)
    if found is None:
        return {}, None
    save_pictures(run, tick, found.pictures)
    return row_of(found), found.score

"""What differs between the ranks of a distributed run, and what they share."""

from __future__ import annotations

from dataclasses import replace

import torch

from worldflux import distributed
from worldflux.core.rand import Rand
from worldflux.errors import ConfigError
from worldflux.training import TrainingPlan
from worldflux_train.seeding import derived


def rank_seed(seed: int, role: str) -> int:
    """A seed for `role` that differs from rank to rank; `derived`'s own in a run of one process."""
    return derived(seed, role, *([distributed.rank()] if distributed.world_size() > 1 else []))


def rank_rand(seed: int, role: str, device: torch.device) -> Rand:
    """A role's random numbers: each rank's own, but for draws that are shared (`Rand.draw`)."""
    found = Rand.seeded(rank_seed(seed, role), device)
    if distributed.world_size() == 1:
        return found
    same = torch.Generator(device).manual_seed(derived(seed, f"{role}, shared"))
    return Rand(found.generator, shared_generator=same)


def rank_plan(plan: TrainingPlan) -> TrainingPlan:
    """The plan as one rank follows it: its batches are the rank's part of the whole ones."""
    ranks = distributed.world_size()
    for phase in plan.phases:
        if phase.batch % ranks:
            raise ConfigError(
                f"Phase {phase.name!r} has batches of {phase.batch} sequences, which {ranks} ranks "
                "cannot share alike. Set its batch size to a multiple, or use as many ranks as "
                "divide it."
            )
    phases = [replace(phase, batch=phase.batch // ranks) for phase in plan.phases]
    return plan if ranks == 1 else replace(plan, phases=phases)

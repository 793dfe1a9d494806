"""What differs between the ranks of a distributed run, and what they share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed as processes

from worldflux import distributed
from worldflux.core.rand import Rand
from worldflux.errors import ConfigError
from worldflux.plugins import fire
from worldflux.training import TrainingPlan
from worldflux_train.seeding import derived


@contextmanager
def joined() -> Iterator[None]:
    """Inside `with`, the processes that torchrun started are the ranks of one run.

    A process of its own, or one whose caller has made the group, stays as it is.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or processes.is_initialized():
        yield
        return
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    processes.init_process_group("nccl" if gpus else "gloo")
    yield
    # After an error the others may never come here: torchrun ends them.
    distributed.wait()
    processes.destroy_process_group()


def own(path: Path) -> Path:
    """`path` itself on rank 0, and a folder in it on each other rank."""
    number = distributed.rank()
    return path / folder_name(number) if number else path


def folder_name(number: int) -> str:
    """What a rank's folders are called, inside those of rank 0."""
    return f"rank{number}"


def tell(event: str, **about: Any) -> None:
    """Fire an event of plugins, once for all ranks."""
    if distributed.rank() == 0:
        fire(event, **about)


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

"""The check of losses that are made of parts, one for each phase that trains the model."""

from __future__ import annotations

import inspect
import zlib
from typing import Any

import torch
from torch import Tensor

from worldflux.core.agent import Learner
from worldflux.core.rand import Rand, Sampler
from worldflux.testing.phases import parameter_names, phase_batch
from worldflux.training import Phase


class _ByName(Rand):
    """The same numbers for the same name, whatever else was asked for before."""

    def draw(
        self,
        name: str,
        shape: tuple[int, ...],
        sampler: Sampler,
        *,
        device: torch.device | str | None = None,
        shared: bool = False,
    ) -> Tensor:
        """The tensor called `name` of `shape`."""
        seed = zlib.crc32(repr(self._key(name)).encode())
        home = torch.device("cpu")
        return sampler(tuple(shape), home, torch.Generator().manual_seed(seed)).to(device or home)


@torch.no_grad()
def check_loss_parts(learner: Learner) -> None:
    """Where phases train parts of the model's loss, `loss(batch)` is the sum of the parts."""
    model, phases = learner.world_model, _training_the_model(learner)
    arguments = inspect.signature(model.loss).parameters
    if len(phases) < 2 or "part" not in arguments:
        return
    batch = phase_batch(learner, max(phases, key=lambda phase: phase.total))
    rand: dict[str, Any] = {"rand": _ByName()} if "rand" in arguments else {}
    parts = {phase.name: model.loss(batch, phase.name, **rand).loss for phase in phases}
    whole = model.loss(batch, **rand).loss
    if all(torch.equal(whole, part) for part in parts.values()):
        return  # every phase trains the whole loss
    total = torch.stack(list(parts.values())).sum()
    found = ", ".join(f"{name}: {part.item():.4g}" for name, part in parts.items())
    assert torch.allclose(total, whole, rtol=1e-4, atol=1e-5), (
        f"loss(batch) is {whole.item():.4g}, but its parts sum to {total.item():.4g} ({found}). "
        "loss(batch, part=phase) is what the phase minimises, loss(batch) the sum over all phases"
    )


def _training_the_model(learner: Learner) -> list[Phase]:
    """The phases whose optimisers hold parameters of the world model."""
    found = []
    for phase in learner.training_plan().phases:
        names = [parameter_names(learner, o) for o in phase.trains or learner.optimizers]
        if any(name.startswith("world_model.") for name in set[str]().union(*names)):
            found.append(phase)
    return found

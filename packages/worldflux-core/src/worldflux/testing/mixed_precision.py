"""The check that an update under bf16 computes with the weights as they are by then.

Autocast keeps the bfloat16 copies of weights that it made. A learner that takes an optimiser step
and goes on computing under the same context uses the old ones, and no error says so. Here every
optimiser step moves the weights far, by an amount that does not depend on gradients; the same
update is then done with and without autocast's copies, and both must tell the same numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from worldflux.core.agent import Learner
from worldflux.testing.phases import updated
from worldflux.training import Phase

_WITHIN = 0.02
_FAR = 0.5


def check_bf16_agrees(learner: Learner) -> None:
    """Under bf16 what an update computes after an optimiser step uses the new weights."""
    for phase in learner.training_plan().phases:
        kept = _metrics(learner, phase)
        with _without_copies():
            fresh = _metrics(learner, phase)
        for name, value in fresh.items():
            close = torch.isclose(kept[name], value, rtol=_WITHIN, atol=1e-6, equal_nan=True)
            assert bool(close), (
                f"phase {phase.name!r} uses stale weights under bf16: {name!r} is "
                f"{kept[name].item():.4g}, and {value.item():.4g} where weights are cast anew for "
                "every pass. Autocast keeps its copies until its outermost context ends: take "
                "steps with Learner.step, or call torch.clear_autocast_cache() after each"
            )


def _metrics(learner: Learner, phase: Phase) -> dict[str, Tensor]:
    twin = copy.deepcopy(learner)
    twin.precision = "bf16"
    for number, optimizer in enumerate(twin.optimizers.values()):
        _moves_far(optimizer, number)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            found = updated(twin, phase).metrics
        except RuntimeError as error:
            raise AssertionError(
                f"phase {phase.name!r} does not run under bf16 (train.precision=bf16): {error} "
                "Give what is kept or written in place its own type: value.to(kept.dtype)"
            ) from error
    return {name: torch.as_tensor(value).double() for name, value in found.items()}


def _moves_far(optimizer: torch.optim.Optimizer, seed: int) -> None:
    """Let each step of `optimizer` replace its own move by a large random one, always the same."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    saved: list[Tensor] = []

    def before(*_: Any) -> None:
        saved[:] = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def after(*_: Any) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter, old in zip(parameters, saved, strict=True):
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            size = 0.02 + old.square().mean().sqrt()
            parameter.copy_(old + _FAR * size * noise if parameter.requires_grad else old)

    hooks: tuple[Callable[..., Any], ...] = (
        optimizer.register_step_pre_hook,
        optimizer.register_step_post_hook,
    )
    for register, hook in zip(hooks, (before, after), strict=True):
        register(hook)


@contextmanager
def _without_copies() -> Iterator[None]:
    """In here autocast casts weights anew for every pass."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)

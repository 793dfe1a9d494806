"""Checks of what every phase of a training plan moves, and of losses that are made of parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.output import UpdateResult
from worldflux.core.rand import Rand
from worldflux.core.zeros import zeros_of
from worldflux.errors import did_you_mean
from worldflux.testing.batches import random_steps
from worldflux.training import Phase

ROWS = 3
UPDATES = 3  # a warm-up may leave the first one without effect


def phase_batch(learner: Learner, phase: Phase, rows: int = ROWS) -> Batch:
    """A random Batch as the loop would sample it for `phase`, with few rows."""
    length = phase.context + min(phase.length, 8)
    boundary, columns = phase.boundary == "cross", learner.columns
    batch = random_steps(columns, rows, length, boundary=boundary, stride=phase.stride)
    return as_sampled(learner, phase, batch)


def as_sampled(learner: Learner, phase: Phase, batch: Batch) -> Batch:
    """`batch` with what sampling for `phase` adds: context, zeros as stored values, index, mask."""
    rows, length = batch.batch_size, batch.length
    return replace(
        batch,
        context=phase.context,
        stored=zeros_of(learner.replay_spec, (rows, phase.context)),
        index=torch.arange(rows * length).reshape(rows, length),
        mask=torch.ones(rows, length, dtype=torch.bool) if phase.pad != "none" else None,
    )


def updated(learner: Learner, phase: Phase, seed: int = 0) -> UpdateResult:
    """One update of `phase` on a random batch."""
    return learner.update(phase_batch(learner, phase), phase.name, rand=Rand.seeded(seed))


def check_update(learner: Learner) -> None:
    """Each phase's update gives finite 0-d metrics, moves what the phase names and nothing else.

    A phase that names no optimisers (`trains`) has to move a trainable parameter.
    """
    frozen = {name for name, p in learner.named_parameters() if not p.requires_grad}
    for phase in learner.training_plan().phases:
        _check_names(learner, phase)
        before = {name: x.detach().clone() for name, x in learner.state_dict().items()}
        steps = dict(learner.steps)
        for seed in range(UPDATES):
            _check_metrics(updated(learner, phase, seed).metrics)
        after = learner.state_dict()
        moved = {name for name, old in before.items() if not torch.equal(old, after[name])}
        _check_not_idle(learner, phase, moved)
        _check_steps_foreseen(learner, phase, steps)
        if phase.trains:
            _check_nothing_else(learner, phase, moved)
            other = [n for n, count in learner.steps.items() if count != steps.get(n, 0)]
            other = [name for name in other if name not in phase.trains]
            assert not other, f"phase {phase.name!r} steps {other}, which is not in its `trains`"
    grads = [n for n, p in learner.named_parameters() if n in frozen and p.grad is not None]
    assert not grads, f"frozen parameters got gradients: {grads[:3]}"


def _check_metrics(metrics: Mapping[str, Tensor | float]) -> None:
    for name, value in metrics.items():
        number = torch.as_tensor(value)
        assert number.ndim == 0, f"metric {name!r} has shape {tuple(number.shape)}"
        assert bool(torch.isfinite(number)), f"metric {name!r} is {number.item()}"


def _check_names(learner: Learner, phase: Phase) -> None:
    for name in phase.trains:
        assert name in learner.optimizers, (
            f"phase {phase.name!r} trains {name!r}, which is no optimiser."
            f"{did_you_mean(name, learner.optimizers)} Optimisers: {', '.join(learner.optimizers)}"
        )
    for prefix in phase.follows:
        assert any(_under(name, prefix) for name in learner.state_dict()), (
            f"phase {phase.name!r} has {prefix!r} in `follows`, but no name in state_dict begins so"
        )


def _under(name: str, prefix: str) -> bool:
    """Whether a name of `state_dict` is `prefix` or lies under it."""
    return name == prefix or name.startswith(prefix.removesuffix(".") + ".")


def parameter_names(learner: Learner, optimizer: str) -> set[str]:
    """The names in `state_dict` of what an optimiser holds."""
    own = {id(p) for group in learner.optimizers[optimizer].param_groups for p in group["params"]}
    named = learner.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if id(parameter) in own}


def _check_not_idle(learner: Learner, phase: Phase, moved: set[str]) -> None:
    trainable = {name for name, p in learner.named_parameters() if p.requires_grad}
    assert moved & trainable, (
        f"phase {phase.name!r} is idle: {UPDATES} updates changed none of the {len(trainable)} "
        "trainable parameters. Train something in it, or take it out of the training plan"
    )
    for optimizer in phase.trains:
        assert moved & parameter_names(learner, optimizer), (
            f"phase {phase.name!r} says that it trains {optimizer!r}, but {UPDATES} updates "
            "changed none of that optimiser's parameters"
        )


def _check_steps_foreseen(learner: Learner, phase: Phase, before: Mapping[str, int]) -> None:
    """A schedule over a whole run counts one step of its optimiser for each update."""
    for name, schedule in learner.schedules.items():
        optimizer = name.partition(".")[0]
        if not schedule.needs_total or optimizer not in (phase.trains or (optimizer,)):
            continue
        taken = learner.steps.get(optimizer, 0) - before.get(optimizer, 0)
        assert taken == UPDATES, (
            f"{UPDATES} updates of phase {phase.name!r} took {taken} steps of {optimizer!r}, whose "
            f"schedule {name!r} goes by the run's updates: it would end too early or never. Take "
            "one step per update, or name what each phase trains in `trains`"
        )


def _check_nothing_else(learner: Learner, phase: Phase, moved: set[str]) -> None:
    trained = {name for optimizer in phase.trains for name in parameter_names(learner, optimizer)}
    parameters = {name for name, _ in learner.named_parameters(remove_duplicate=False)}
    other = sorted(
        name
        for name in moved - trained
        if not any(_under(name, prefix) for prefix in phase.follows)
    )
    kinds = ["a parameter" if name in parameters else "a buffer" for name in other]
    assert not other, (
        f"phase {phase.name!r} moves {other[0]!r} ({kinds[0]}, one of {len(other)}), which belongs "
        f"to none of the optimisers it trains ({', '.join(phase.trains)}). Leave it alone, name "
        "its optimiser in `trains`, or, if it follows without a gradient, its name in `follows`"
    )

"""A batch in equal parts of its rows, and their outputs as those of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.output import LossOutput
from worldflux.core.state import State
from worldflux.errors import ContractError

Computed = LossOutput | tuple[Tensor, Mapping[str, Any]]
"""What `Learner.step` minimises: a LossOutput, or the loss with outputs to hand back."""


def loss_and_outputs(computed: Computed) -> tuple[Tensor, Mapping[str, Any]]:
    """The loss (0-d), and outputs by name: of a LossOutput its parts as "loss/<part>"."""
    if not isinstance(computed, LossOutput):
        return computed
    parts = {f"loss/{key}": value for key, value in computed.items()}
    return computed.loss, {**parts, **computed.metrics}


def detached(value: Any) -> Any:
    """A tensor or State of any shape without its graph; anything else as it is."""
    return value.detach() if isinstance(value, Tensor | State) else value


def cut(rows: Any, count: int) -> list[Any]:
    """`count` equal parts of a Batch, a State or a mapping of them and of tensors, rows first.

    Each member of a mapping is cut by its own number of rows: a batch and what is carried from
    update to update need not have equally many.
    """
    if isinstance(rows, Mapping):
        members = {key: cut(value, count) for key, value in rows.items()}
        return [{key: parts[i] for key, parts in members.items()} for i in range(count)]
    size = int(rows.shape[0]) if isinstance(rows, Tensor) else rows.batch_size
    if size % count:
        raise ContractError(
            f"A batch of {size} rows has no {count} equal parts: choose train.accumulate so that "
            "it divides the batch."
        )
    width = size // count
    return [_part(rows, slice(i * width, (i + 1) * width)) for i in range(count)]


def shares(parts: Sequence[Any]) -> list[float]:
    """How much of the whole each part is: by steps that are no padding, else equal."""
    counts = [_held(part) for part in parts]
    if any(count is None for count in counts):
        return [1 / len(parts)] * len(parts)
    held = [float(count or 0.0) for count in counts]
    return [count / max(sum(held), 1.0) for count in held]


def joined(outputs: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> dict[str, Any]:
    """Rows of tensors and States after one another; numbers averaged by `weights`."""
    return {key: _join([each[key] for each in outputs], weights) for key in outputs[0]}


def _part(rows: Any, where: slice) -> Any:
    if isinstance(rows, Batch):
        return rows.map(lambda tensor: tensor[where])
    return rows.rows(where) if isinstance(rows, State) else rows[where]


def _held(rows: Any) -> float | None:
    if isinstance(rows, Batch):
        return None if rows.mask is None else float(rows.mask.sum())
    if isinstance(rows, Mapping):
        found = [_held(value) for value in rows.values()]
        return next((count for count in found if count is not None), None)
    return None


def _join(values: Sequence[Any], weights: Sequence[float]) -> Any:
    first = values[0]
    if isinstance(first, State):
        return State.cat(values)
    if isinstance(first, Tensor) and first.ndim:
        return torch.cat(list(values))
    if isinstance(first, Tensor | float):
        return sum(value * weight for value, weight in zip(values, weights, strict=True))
    return first

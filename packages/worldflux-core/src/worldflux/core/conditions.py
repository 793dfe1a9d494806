"""Conditions of B rows for copies of these rows: candidates of a plan, steps of a rollout.

Which parts have a value per row is a matter of their names, never of their shapes (see
`ConditionPayload`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.errors import ContractError

ACTION_MASK = "wf.action.mask"
ROW_EXTRAS = ("wf.row.", "wf.data.", ACTION_MASK)
"""Beginnings of the names of extras that have a value per row."""


def repeated_conditions(
    conditions: ConditionPayload | None, batch: int, count: int
) -> ConditionPayload | None:
    """Conditions of `batch` rows for batch * count rows, a row's copies adjacent."""

    def repeat(value: Any) -> Any:
        if isinstance(value, State):
            return value.repeat(count)
        if isinstance(value, Tensor):
            return value.repeat_interleave(count, 0)
        return [item for item in value for _ in range(count)]

    return _by_row(conditions, batch, repeat)


def tiled_conditions(
    conditions: ConditionPayload | None, batch: int, count: int
) -> ConditionPayload | None:
    """Conditions of `batch` rows for count * batch rows: all rows, `count` times over."""

    def tile(value: Any) -> Any:
        if isinstance(value, State):
            return State.cat([value] * count)
        if isinstance(value, Tensor):
            return value.repeat(count, *[1] * (value.ndim - 1))
        return list(value) * count

    return _by_row(conditions, batch, tile)


def _by_row(
    conditions: ConditionPayload | None, batch: int, function: Callable[[Any], Any]
) -> ConditionPayload | None:
    """`function` of all that has a value per row; the rest is shared and stays as it is."""
    if conditions is None:
        return None

    def changed(name: str, value: Any) -> Any:
        rows = _rows(value)
        if rows != batch:
            found = "no" if rows is None else rows
            raise ContractError(
                f"Condition {name!r} has {found} rows, expected {batch}: it stands for each row "
                "of the batch. Give each row its value; shared ones are extras of another name "
                "(see ConditionPayload)."
            )
        return function(value)

    named = {f.name: getattr(conditions, f.name) for f in fields(conditions) if f.name != "extras"}
    return replace(
        conditions,
        **{name: changed(name, value) for name, value in named.items() if value is not None},
        extras={
            key: changed(key, value) if _per_row(key, value) else value
            for key, value in conditions.extras.items()
        },
    )


def _per_row(key: str, value: Any) -> bool:
    return isinstance(value, State) or (value is not None and key.startswith(ROW_EXTRAS))


def _rows(value: Any) -> int | None:
    if isinstance(value, State):
        return value.batch_size
    if isinstance(value, Tensor):
        return int(value.shape[0]) if value.ndim else None
    return len(value) if isinstance(value, list | tuple) else None

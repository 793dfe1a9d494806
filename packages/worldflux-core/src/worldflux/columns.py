"""The columns one step is recorded in, for replay, episodes and datasets alike; no torch here.

This is the one place that knows their names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ContractError, did_you_mean
from worldflux.specs import TensorSpec, only_action

OBS = "obs."
STORED = "stored."
EXTRA = "extra."
ACTION = "action"
REWARD = "reward"
DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"
)  # fmt: skip
FLAGS = ("is_first", "is_last", "is_terminal")

Columns = Mapping[str, TensorSpec]
Rows = Mapping[str, NDArray[np.generic]]
_V = TypeVar("_V")


def step_columns(
    obs: Columns,
    action: TensorSpec | Columns | None = None,
    stored: Columns | None = None,
    *,
    extra: Columns | None = None,
    reward: bool | None = None,
) -> dict[str, TensorSpec]:
    """One step's columns: `obs.<key>`, `action`, `reward`, three flags, `stored.*`, `extra.*`.

    Without an action there is no `action` column (video, images). `reward` says whether there is
    a reward; None: where there is an action. `extra` are further facts of a step (a label, text,
    a camera pose).
    """
    columns = {f"{OBS}{key}": spec for key, spec in obs.items()}
    taken = only_action(action, "A step")
    if taken is not None:
        columns[ACTION] = taken
    if taken is not None if reward is None else reward:
        columns[REWARD] = TensorSpec((), "float32")
    columns |= {flag: TensorSpec((), "bool") for flag in FLAGS}
    columns |= {f"{STORED}{key}": spec for key, spec in (stored or {}).items()}
    columns |= {f"{EXTRA}{key}": spec for key, spec in (extra or {}).items()}
    for name, spec in columns.items():
        if spec.dtype not in DTYPES:
            raise ContractError(
                f"Column {name!r} has the type {spec.dtype!r}.{did_you_mean(spec.dtype, DTYPES)} "
                f"Types: {', '.join(DTYPES)}."
            )
    for key in extra or {}:
        if not re.fullmatch(r"[A-Za-z0-9_]+", key):
            raise ContractError(
                f"Column {EXTRA + key!r}: models get it as the condition wf.data.{key}, so its "
                "name takes letters, digits and _ only."
            )
    return columns


def observations(columns: Columns) -> dict[str, TensorSpec]:
    """The observation spaces by key."""
    return {key: columns[name] for key, name in under(OBS, columns).items()}


def actions(columns: Columns) -> dict[str, TensorSpec]:
    """The action space under its key; empty where a step has no action."""
    return {ACTION: columns[ACTION]} if ACTION in columns else {}


def under(prefix: str, columns: Mapping[str, object]) -> dict[str, str]:
    """Bare key -> column name, for the columns that start with `prefix`."""
    return {name.removeprefix(prefix): name for name in columns if name.startswith(prefix)}


def parts(found: Mapping[str, _V]) -> dict[str, Any]:
    """Values by column as the fields of a `Batch`; an action or reward that is not there is None.

    Context steps aside: `stored` holds what is there.
    """
    groups = {"obs": OBS, "stored": STORED, "extra": EXTRA}
    whole: dict[str, Any] = {name: found.get(name) for name in (ACTION, REWARD, *FLAGS)}
    return whole | {
        group: {key: found[name] for key, name in under(prefix, found).items()}
        for group, prefix in groups.items()
    }


def storage_dtype(spec: TensorSpec) -> np.dtype[np.generic]:
    """The numpy type a column is kept in; bfloat16, which numpy lacks, as its 16 bits."""
    return np.dtype("uint16" if spec.dtype == "bfloat16" else spec.dtype)


def row_bytes(columns: Columns) -> int:
    """Bytes of one step over all columns."""
    return sum(math.prod(spec.shape) * storage_dtype(spec).itemsize for spec in columns.values())


def check_names(columns: Columns, names: Mapping[str, object], where: str) -> None:
    """Raise `ContractError` unless `names` are exactly the columns."""
    for name in names:
        if name not in columns:
            raise ContractError(
                f"{where} got an unknown column {name!r}.{did_you_mean(name, columns)} "
                f"Columns: {', '.join(columns)}."
            )
    missing = [name for name in columns if name not in names]
    if missing:
        raise ContractError(
            f"{where} lacks {', '.join(missing)}. Every step has: {', '.join(columns)}."
        )


def to_json(columns: Columns) -> dict[str, dict[str, Any]]:
    """The whole spec of each column, as written into our files."""
    return {name: spec.to_json() for name, spec in columns.items()}


def from_json(values: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
    """The columns that `to_json` wrote."""
    return {name: TensorSpec.from_json(spec) for name, spec in values.items()}

"""The columns one step is recorded in, for replay, episodes and datasets alike; no torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ContractError, did_you_mean
from worldflux.specs import TensorSpec

OBS = "obs."
STORED = "stored."
DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"
)  # fmt: skip
FLAGS = ("is_first", "is_last", "is_terminal")

Columns = Mapping[str, TensorSpec]
Rows = Mapping[str, NDArray[np.generic]]


def step_columns(
    obs: Columns, action: TensorSpec | Columns, stored: Columns | None = None
) -> dict[str, TensorSpec]:
    """`obs.<key>`, `action`, `reward`, the three flags and `stored.<key>`: one step's columns."""
    columns = {f"{OBS}{key}": spec for key, spec in obs.items()}
    columns["action"] = action if isinstance(action, TensorSpec) else _only(action)
    columns["reward"] = TensorSpec((), "float32")
    columns |= {flag: TensorSpec((), "bool") for flag in FLAGS}
    columns |= {f"{STORED}{key}": spec for key, spec in (stored or {}).items()}
    for name, spec in columns.items():
        if spec.dtype not in DTYPES:
            raise ContractError(
                f"Column {name!r} has the type {spec.dtype!r}.{did_you_mean(spec.dtype, DTYPES)} "
                f"Types: {', '.join(DTYPES)}."
            )
    return columns


def under(prefix: str, columns: Mapping[str, object]) -> dict[str, str]:
    """Bare key -> column name, for the columns that start with `prefix`."""
    return {name.removeprefix(prefix): name for name in columns if name.startswith(prefix)}


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


def to_json(columns: Columns) -> dict[str, dict[str, object]]:
    """Shape and type of each column, as written into our files."""
    return {
        name: {"shape": list(spec.shape), "dtype": spec.dtype} for name, spec in columns.items()
    }


def _only(action: Columns) -> TensorSpec:
    if len(action) != 1:
        raise ContractError(
            f"A step has one action, got {len(action)} action specs: {', '.join(action) or 'none'}."
            " Join them into one spec."
        )
    return next(iter(action.values()))

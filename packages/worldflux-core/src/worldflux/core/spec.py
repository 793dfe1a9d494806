"""Descriptions of states, predictions and axis layouts, and a model's whole input and output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from worldflux.specs import Capability, TensorSpec

__all__ = [
    "Capability",
    "ModelIOContract",
    "PredictionSpec",
    "SequenceLayout",
    "StateSpec",
    "TensorSpec",
]


@dataclass(frozen=True)
class StateSpec:
    """The tensors a model's State holds, each without its batch axis."""

    tensors: Mapping[str, TensorSpec] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictionSpec:
    """The keys `decode` predicts, each without its batch axis."""

    tensors: Mapping[str, TensorSpec] = field(default_factory=dict)


@dataclass(frozen=True)
class SequenceLayout:
    """Axis letters of each tensor, e.g. `{"reward": "TB", "obs": "BTCYX"}` (see docs/shapes)."""

    axes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelIOContract:
    """Everything that goes into and comes out of a model."""

    obs: Mapping[str, TensorSpec]
    action: Mapping[str, TensorSpec]
    state: StateSpec
    predictions: PredictionSpec
    capabilities: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Stable hex digest; equal contracts have equal fingerprints in every process."""
        text = json.dumps(_unnamed(asdict(self)), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unnamed(value: Any) -> Any:
    # Names of choices say nothing about shapes: a model fits whatever its actions are called.
    if isinstance(value, dict):
        return {key: _unnamed(item) for key, item in value.items() if key != "labels"}
    return value

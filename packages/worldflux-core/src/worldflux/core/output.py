"""What a model returns: predictions of a state, and losses of a batch."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from worldflux.core.spec import PredictionSpec, SequenceLayout
from worldflux.core.state import State
from worldflux.describe import Described, on


@dataclass(repr=False)
class ModelOutput(Described):
    """Predictions decoded from `state`; `predictions["continue"]` is a probability."""

    predictions: dict[str, Tensor] = field(default_factory=dict)
    state: State | None = None
    uncertainty: Tensor | None = None
    aux: dict[str, Any] = field(default_factory=dict)
    prediction_spec: PredictionSpec | None = field(default=None, repr=False)
    sequence_layout: SequenceLayout | None = field(default=None, repr=False)

    def sizes(self) -> str:
        """The device."""
        return on(self.predictions.values())

    def unflat(self, lead: tuple[int, ...]) -> ModelOutput:
        """Outputs of rows (N, ...) as (*lead, ...), where lead multiplies to N."""

        def split(value: Any) -> Any:
            rows = isinstance(value, Tensor) and value.ndim and len(value) == math.prod(lead)
            return value.unflatten(0, lead) if rows else value

        return replace(
            self,
            predictions={key: split(value) for key, value in self.predictions.items()},
            uncertainty=split(self.uncertainty),
            aux={key: split(value) for key, value in self.aux.items()},
        )


@dataclass(repr=False)
class LossOutput(Described):
    """The scalar to minimise, its named parts (unscaled means), and metrics (0-d or float)."""

    loss: Tensor
    components: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor | float] = field(default_factory=dict)

    def sizes(self) -> str:
        """The device."""
        return on([self.loss])

    def items(self) -> ItemsView[str, Tensor]:
        """The named parts."""
        return self.components.items()


@dataclass(repr=False)
class UpdateResult(Described):
    """What one `Learner.update` reports.

    `metrics` are 0-d tensors still on the device. `replay_writes` are per-step values
    (B, T - context, ...) to be written back to the rows `batch.index[:, context:]`.
    """

    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    replay_writes: Mapping[str, Tensor] = field(default_factory=dict)


def metrics(outputs: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor | float]:
    """The numbers among a step's outputs (0-d tensors and floats), named `prefix` + their name."""
    return {
        prefix + key: value
        for key, value in outputs.items()
        if isinstance(value, float) or (isinstance(value, Tensor) and value.ndim == 0)
    }

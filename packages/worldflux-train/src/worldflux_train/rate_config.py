"""How rates change over a run, as a run's configuration says it: `train.schedules`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from worldflux.config import Config

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Moment = NonNegativeInt | Share
ALL = "all"
"""In place of the name of an optimiser: every one."""


class RateSchedule(Config):
    """One rate of one optimiser, as a share of what the family's configuration says.

    Moments count the optimiser's steps (integers), or are shares of all of them (0.1).
    """

    kind: Literal["constant", "linear", "cosine", "exponential", "step", "plateau"] = "constant"
    """Stays, goes to `end` in a straight line, along half a cosine, by ratios, or at once `at`
    moments; or falls by `factor` whenever evaluations are no better."""
    warmup: Moment = 0
    """Until when it rises from `start` in a straight line."""
    start: NonNegativeFloat = 0.0
    """Share at the start of the warm-up."""
    peak: NonNegativeFloat = 1.0
    """Share after the warm-up."""
    end: NonNegativeFloat | None = None
    """Share at the end. None: 0, for exponential and step 0.1."""
    at: Moment | tuple[Moment, ...] | None = None
    """When a step happens; at several moments, by the same ratio at each."""
    decay: Moment | None = None
    """How long the way down takes, at the end; None: all that the warm-up leaves."""
    patience: PositiveInt = 5
    """Evaluations without a better score after which a plateau's rate falls."""
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """What a plateau's rate falls by."""
    least: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01
    """Below this share a plateau's rate does not fall."""


def _named(value: Any) -> Any:
    """`cosine` is `{kind: cosine}`."""
    return {"kind": value} if isinstance(value, str) else value


Rates = dict[Literal["lr", "weight_decay"], Annotated[RateSchedule, BeforeValidator(_named)]]
Schedules = dict[str, Rates]
"""By optimiser, or "all"."""

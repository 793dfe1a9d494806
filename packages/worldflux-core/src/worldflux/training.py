"""How a family wants to be trained, as data. This module imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from worldflux.errors import ContractError, did_you_mean

Boundary = Literal["cross", "within"]
Pad = Literal["none", "before", "after", "both"]
Ends = Literal["uniform", "oversampled"]
SourceName = Literal["data", "replay"]
_CHOICES = {
    "boundary": ("cross", "within"),
    "pad": ("none", "before", "after", "both"),
    "ends": ("uniform", "oversampled"),
}


@dataclass(frozen=True)
class LeastSampled:
    """Weights of episodes that favour those drawn least: (1 + times drawn) ** -exponent."""

    exponent: float = 1.0


@dataclass(frozen=True)
class Phase:
    """One kind of update: when it happens, and which sequences it is made of.

    **When.** A phase lives from `start` to `end` of the clock (None: to the run's end) and begins
    once at least `minimum` sequences can be drawn. `updates` are done at once when it begins,
    `updates_per_step` from then on; a phase with neither only asks for batches (an evaluation, a
    session).

    **What.** An update gets `batch` sequences of `context + length` steps; the first `context`
    steps only carry state in. `boundary` says whether a sequence may hold the end of an episode
    (`cross`, marked by `is_first`) or lies in one episode (`within`). `pad` lets it begin
    `before` the episode does, end `after` it, or `both`, always with at least one step of its
    `length` inside; it implies `within`, and the batch's `mask` tells. With `after` the context is
    whole, with `before` the `length` is.

    Sequences are drawn uniformly from all possible ones. With `weights` the episode is drawn
    first, then a sequence in it: numbers weigh equal parts of the list of episodes, oldest first
    (`(1.0,)` takes all episodes alike, running ones too); `LeastSampled` favours those that were
    drawn least. With `ends="oversampled"` a sequence begins at any row of its episode alike, and
    at the last possible one where that is too late: episodes' ends are seen more often (DreamerV2).

    `stride` k takes every k-th observation: T of them span (T-1)k+1 rows of one episode, their
    actions are blocks (B, T, k, ...) and their rewards sums of k. A block that an episode's end or
    beginning cuts is zero.

    `source` is where the sequences come from: "data", "replay", or None for all that the run has.
    `trains` names the optimisers that step (empty: all), `follows` prefixes of `state_dict` names
    that move without a gradient (averages, code-books, running statistics).
    """

    name: str
    batch: int
    length: int
    updates_per_step: float | None = None
    updates: int | None = None
    start: int = 0
    end: int | None = None
    minimum: int = 1
    boundary: Boundary = "cross"
    pad: Pad = "none"
    context: int = 0
    stride: int = 1
    weights: tuple[float, ...] | LeastSampled | None = None
    ends: Ends = "uniform"
    source: SourceName | None = None
    trains: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise self._wrong(
                    f"{name} is {value!r}.{did_you_mean(str(value), choices)} "
                    f"Choose {', '.join(choices)}"
                )
        if self.source not in (None, "data", "replay"):
            raise self._wrong(f"source is {self.source!r}, expected data, replay or None")
        self._check_numbers()
        self._check_weights()
        if self.pad != "none":
            object.__setattr__(self, "boundary", "within")
        for name in ("trains", "follows"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        single = self.stride > 1 or self.weights is not None or self.ends != "uniform"
        if self.boundary == "cross" and single:
            raise self._wrong(
                "stride, weights and ends draw from single episodes, boundary is 'cross': "
                "set boundary='within'"
            )

    @property
    def total(self) -> int:
        """Steps of a sequence, context and all."""
        return self.context + self.length

    def _check_numbers(self) -> None:
        least = {"batch": 1, "length": 1, "stride": 1, "minimum": 1, "context": 0, "start": 0}
        for name, low in least.items():
            if (value := getattr(self, name)) < low:
                raise self._wrong(f"{name} must be at least {low}, got {value}")
        for name in ("updates", "updates_per_step"):
            if (value := getattr(self, name)) is not None and not 0 <= value < float("inf"):
                raise self._wrong(f"{name} cannot be negative or infinite, got {value}")
        if self.end is not None and self.end <= self.start:
            raise self._wrong(f"end={self.end} is not after start={self.start}")

    def _check_weights(self) -> None:
        if self.weights is None or isinstance(self.weights, LeastSampled):
            return
        object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
        finite = all(0 <= weight < float("inf") for weight in self.weights)
        if not finite or not sum(self.weights) > 0:
            raise self._wrong(
                f"weights={self.weights} must be numbers of at least 0 that are not all 0, one "
                "for each equal part of the list of episodes"
            )

    def _wrong(self, what: str) -> ContractError:
        return ContractError(f"Phase {self.name!r}: {what}.")


@dataclass(frozen=True)
class TrainingPlan:
    """The phases of a family's training.

    The first `prefill` steps take random actions; that delays no phase. Steps are collected until
    `collect_until` of the clock (None: to the run's end, 0: never, the data is all there is).
    """

    phases: Sequence[Phase]
    prefill: int = 0
    collect_until: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        names = [phase.name for phase in self.phases]
        if not names or len(set(names)) != len(names):
            raise ContractError(f"A TrainingPlan needs phases with distinct names, got {names}.")
        idle = [p.name for p in self.phases if p.updates is None and p.updates_per_step is None]
        if idle or not any(phase.updates or phase.updates_per_step for phase in self.phases):
            raise ContractError(
                f"A phase of this TrainingPlan has no updates ({', '.join(idle or names)}): give "
                "it updates_per_step (a ratio), updates (a burst) or both."
            )
        if self.prefill < 0 or (self.collect_until or 0) < 0:
            raise ContractError(
                f"A TrainingPlan's prefill={self.prefill} and collect_until={self.collect_until} "
                "cannot be negative."
            )

    def phase(self, name: str) -> Phase:
        """The phase called `name`."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        known = ", ".join(phase.name for phase in self.phases)
        raise ContractError(f"This training plan has no phase {name!r}. Phases: {known}.")

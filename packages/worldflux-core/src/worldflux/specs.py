"""What models and environments declare about themselves. Data only, no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from worldflux.errors import ContractError

if TYPE_CHECKING:
    from worldflux.config import Config


class Capability(StrEnum):
    """What a world model can do beyond `encode`, `transition` and `loss`."""

    OBS_DECODE = "obs_decode"
    REWARD_PRED = "reward_pred"
    CONTINUE_PRED = "continue_pred"
    VALUE_PRED = "value_pred"
    PLANNING = "planning"
    UNCONDITIONAL = "unconditional"
    GOAL_CONDITIONED = "goal_conditioned"
    LATENT_ACTIONS = "latent_actions"
    STATELESS = "stateless"
    UNCERTAINTY = "uncertainty"


@dataclass(frozen=True)
class TensorSpec:
    """Shape, type and bounds of one array, without batch or time axes.

    `n` makes it discrete: an int for one choice (shape `()`), a tuple for several at once
    (multi-discrete, shape `(len(n),)`). `low`/`high` are scalars or nested tuples of `shape`.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float | tuple[Any, ...] | None = None
    high: float | tuple[Any, ...] | None = None
    n: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        if isinstance(self.n, Sequence):
            object.__setattr__(self, "n", tuple(int(choices) for choices in self.n))
        expected = self._discrete_shape()
        if expected is not None and self.shape != expected:
            raise ContractError(
                f"TensorSpec with n={self.n} has shape {self.shape}, expected {expected}: "
                "one choice is a scalar, several are a vector of that many."
            )
        if any(size < 0 for size in self.shape) or any(count < 1 for count in self.counts):
            raise ContractError(f"TensorSpec sizes must be positive: shape={self.shape} n={self.n}")

    def _discrete_shape(self) -> tuple[int, ...] | None:
        if self.n is None:
            return None
        return () if isinstance(self.n, int) else (len(self.n),)

    @property
    def discrete(self) -> bool:
        """Whether values are indices of choices."""
        return self.n is not None

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of choices of each discrete part; empty for a continuous spec."""
        if self.n is None:
            return ()
        return (self.n,) if isinstance(self.n, int) else self.n

    @property
    def image(self) -> bool:
        """Whether this is an image: uint8 of shape (C, Y, X)."""
        return self.dtype == "uint8" and len(self.shape) == 3

    @property
    def size(self) -> int:
        """Length of the flat vector a model sees: choices one-hot, everything else raveled."""
        return sum(self.counts) if self.discrete else math.prod(self.shape)


@dataclass(frozen=True)
class ModelSpec:
    """One model family: where its code lives, what it can do, and its presets."""

    family: str
    config: type[Config]
    presets: Mapping[str, Config]
    default_preset: str
    model: str
    agent: str | None = None
    description: str = ""
    aliases: tuple[str, ...] = ()
    paper: str = ""
    capabilities: frozenset[Capability] = frozenset()

    def __post_init__(self) -> None:
        if self.default_preset not in self.presets:
            raise ContractError(
                f"ModelSpec {self.family!r}: default_preset {self.default_preset!r} is not one of "
                f"its presets: {', '.join(self.presets)}."
            )


@dataclass(frozen=True)
class EnvSpec:
    """One environment backend: how to make its environments and what it needs installed.

    `make`, `make_vec` and `tasks` are `"module:function"` strings, resolved when called:
    `make(task, **options) -> gymnasium.Env`, `make_vec(task, num_envs, **options) ->
    gymnasium.vector.VectorEnv`, `tasks() -> list of names`. `requires` are import names that
    must be there, `install` is the line that brings them. `vector` names the options only
    `make_vec` takes; `evaluation` are the options of the form agents are evaluated in, where it
    differs from the one they are trained in.
    """

    backend: str
    make: str
    make_vec: str | None = None
    tasks: str | None = None
    description: str = ""
    aliases: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    install: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    vector: Mapping[str, str] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

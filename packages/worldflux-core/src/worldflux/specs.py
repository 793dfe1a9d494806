"""What models and environments declare about themselves. Data only, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
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
    `labels` name the choices, where they have names: one for each of `n`.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float | tuple[Any, ...] | None = None
    high: float | tuple[Any, ...] | None = None
    n: int | tuple[int, ...] | None = None
    labels: tuple[str, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))
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
        if self.labels is not None and set(self.counts) != {len(self.labels)}:
            raise ContractError(
                f"TensorSpec has {len(self.labels)} labels for n={self.n}: give one for each "
                "choice, or none."
            )

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

    def block(self, k: int) -> TensorSpec:
        """The space of `k` of these in a row, shape (k, *shape): actions under a stride of `k`."""
        if k < 1:
            raise ContractError(f"TensorSpec.block takes at least 1 action, got {k}.")
        if k == 1:
            return self
        if isinstance(self.n, tuple):
            raise ContractError(
                f"TensorSpec.block({k}) of n={self.n}: several choices at once have no blocks. "
                "Make them one choice, or use a stride of 1."
            )
        low, high = ((x,) * k if isinstance(x, tuple) else x for x in (self.low, self.high))
        n = None if self.n is None else (self.n,) * k
        return TensorSpec((k, *self.shape), self.dtype, low, high, n, self.labels)

    def to_json(self) -> dict[str, Any]:
        """Everything about it as JSON values; what is None is left out."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: _plain(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TensorSpec:
        """What `to_json` gave, as a TensorSpec; `ContractError` if it is none."""
        try:
            found: dict[str, Any] = {name: _nested(value) for name, value in values.items()}
            bounds: dict[str, Any] = {
                name: _numbers(found[name]) for name in ("low", "high") if name in found
            }
            found.update(bounds)
            return cls(**found)
        except (TypeError, ValueError, AttributeError) as error:
            raise ContractError(f"{dict(values)} describes no TensorSpec: {error}.") from error


def _plain(value: Any) -> Any:
    # JSON has no infinity, which bounds of spaces often are: "inf" and "-inf".
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _nested(value: Any) -> Any:
    return tuple(_nested(item) for item in value) if isinstance(value, list) else value


def _numbers(value: Any) -> Any:
    return tuple(map(_numbers, value)) if isinstance(value, tuple) else float(value)


def only_action(
    action_spec: Mapping[str, TensorSpec] | TensorSpec | None, owner: str, stride: int = 1
) -> TensorSpec | None:
    """The one action space, of blocks under a `stride`; None without any.

    `ContractError` for several, naming `owner`.
    """
    if action_spec is None or isinstance(action_spec, TensorSpec):
        return None if action_spec is None else action_spec.block(stride)
    if len(action_spec) > 1:
        raise ContractError(
            f"{owner} takes one action space, got {len(action_spec)}: {', '.join(action_spec)}. "
            "Join choices into one multi-discrete space."
        )
    found = next(iter(action_spec.values()), None)
    return None if found is None else found.block(stride)


@dataclass(frozen=True)
class CheckSettings:
    """How the published checks train a family for a moment: small sizes and a quick optimiser.

    `overrides` are configuration values over `preset` (the smallest one by default). They change
    no loss, shift or target: those are what is checked. At most `updates` are done of every phase,
    each on `rows` sequences; 0 is a family that cannot learn the known world in a moment. Random
    observations that are images have sides of `image`.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    updates: int = 300
    rows: int = 16
    image: int = 64


@dataclass(frozen=True)
class ModelSpec:
    """One model family: where its code lives, what it can do, and its presets.

    `defaults` are the `train.*` and `data.*` values that a preset's paper has, by preset and dotted
    key (`{"*": {"train.replay_online": True}}`; "*" is every preset); a run may override them.
    `model` and `agent` are `"module:Class"`; a spec that is only registered in a process may hold
    the classes.
    """

    family: str
    config: type[Config]
    presets: Mapping[str, Config]
    default_preset: str
    model: str | type
    agent: str | type | None = None
    description: str = ""
    aliases: tuple[str, ...] = ()
    paper: str = ""
    capabilities: frozenset[Capability] = frozenset()
    check: CheckSettings | None = CheckSettings()
    """How the checks train it in a known world; None if its States have no room for that world."""
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def defaults_of(self, preset: str) -> dict[str, Any]:
        """The `train.*` and `data.*` values of a preset, by dotted key."""
        return {**self.defaults.get("*", {}), **self.defaults.get(preset, {})}

    def __post_init__(self) -> None:
        for preset, values in self.defaults.items():
            wrong = [key for key in values if not key.startswith(("train.", "data."))]
            if wrong or preset not in ("*", *self.presets):
                raise ContractError(
                    f"ModelSpec {self.family!r}: defaults of {preset!r} with the keys "
                    f"{', '.join(values)}. They are by preset ('*' for all: "
                    f"{', '.join(self.presets)}), and their keys begin with train. or data."
                )
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
    differs from the one they are trained in. `runs_code` is `"module:function"` too: asked with a
    task, it says in words what code the id alone would import or start ("starts the program x"),
    or gives None where the task is only a name or a file that is read. Left out, a task with a
    colon is `module:name`, and the rest are names.

    A backend without `make_vec` gets the whole contract from worldflux-envs, whatever Gymnasium
    environment its `make` gives: observations and actions in the contract's form, every step
    checked, vectors with seeds and failures of their own, and the options of every backend that it
    does not name in `options`.
    """

    backend: str
    make: str | Callable[..., Any]
    make_vec: str | Callable[..., Any] | None = None
    tasks: str | Callable[[], list[str]] | None = None
    description: str = ""
    aliases: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    install: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    vector: Mapping[str, str] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    runs_code: str | None = None

"""Actions that come from outside, checked, and the keys and sliders that give them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.core.model import WorldModel
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec

Array = NDArray[Any]

_ARROWS = {"up": "ArrowUp", "down": "ArrowDown", "left": "ArrowLeft", "right": "ArrowRight"}
_OTHERS = {"forward": "ArrowUp", "fire": " ", "jump": " ", "shoot": " "}
_NOTHING = {"noop", "stay", "none", "nothing", "wait", "idle"}
_ROW = "1234567890qwertyuiop"
"""Keys of choices whose names say nothing of arrows, in their order."""
_MOST_SLIDERS = 24


def described(spec: TensorSpec | None) -> dict[str, Any]:
    """What a page needs to offer the actions of a space."""
    if spec is None:
        return {"kind": "none"}
    if isinstance(spec.n, int):
        names = list(spec.labels or (str(choice) for choice in range(spec.n)))
        return {"kind": "choice", "names": names, "keys": keys(names), "idle": idle(names)}
    if spec.n is not None:
        return {"kind": "choices", "counts": list(spec.counts), "shape": list(spec.shape)}
    size = math.prod(spec.shape)
    return {"kind": "numbers", "size": size, "sliders": min(size, _MOST_SLIDERS)}


def keys(names: list[str]) -> list[list[str]]:
    """For each choice the keys that are held for it: arrows where its name says so."""
    found = [_spoken(name) for name in names]
    told = [combination for combination in found if combination]
    if len({tuple(combination) for combination in told}) < len(told) or not told:
        found = [[] for _ in names]  # two choices of one name: every choice gets a key of its own
    free = iter(_ROW)
    nothing = idle(names)
    return [
        combination or ([] if told and choice == nothing else [next(free, "")])
        for choice, combination in enumerate(found)
    ]


def idle(names: list[str]) -> int | None:
    """The choice that does nothing, by its name; None where no name says so."""
    return next((i for i, name in enumerate(names) if _plain(name) in _NOTHING), None)


def action_array(spec: TensorSpec, value: object) -> Array:
    """An action from outside as an array of the space; `ContractError` for anything else."""
    given: list[Any] = value if isinstance(value, list) else [value]
    if spec.discrete:
        counts = spec.counts
        fits = len(given) == len(counts) and isinstance(value, list) == bool(spec.shape)
        if not fits or not all(
            isinstance(x, int) and not isinstance(x, bool) and 0 <= x < n
            for x, n in zip(given, counts, strict=False)
        ):
            raise ContractError(f"The action {_short(value)} is no choice of {list(counts)}.")
        return np.array(given, np.int64).reshape(spec.shape)
    size = math.prod(spec.shape)
    right = len(given) == size and all(
        isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < math.inf for x in given
    )
    if not right:
        raise ContractError(f"The action {_short(value)} is not {size} finite numbers.")
    return np.array([max(-1, min(1, x)) for x in given], np.float32).reshape(spec.shape)


def one_action(model: WorldModel) -> TensorSpec | None:
    """The space of what a player does in a step: under a stride, of one action of a block."""
    if model.stride > 1:
        return next(iter(model.action_spec.values()), None)
    return model.action


def nothing(spec: TensorSpec) -> Array:
    """The action of somebody who does nothing: the idle choice, else the first; zeros."""
    if isinstance(spec.n, int):
        return np.array(idle(list(spec.labels or ())) or 0, np.int64)
    return np.zeros(spec.shape, np.int64 if spec.discrete else np.float32)


def any_action(spec: TensorSpec, chance: np.random.Generator) -> Array:
    """A uniformly drawn action."""
    if isinstance(spec.n, int):
        return np.array(chance.integers(spec.n), np.int64)
    if spec.discrete:
        return chance.integers(np.array(spec.counts)).astype(np.int64)
    return chance.uniform(-1, 1, spec.shape).astype(np.float32)


def _spoken(name: str) -> list[str]:
    """The keys a name speaks of: `UPRIGHTFIRE` of three; none if it says anything else too."""
    rest, found = _plain(name).removeprefix("move").removeprefix("go"), []
    for word, key in (_ARROWS | _OTHERS).items():
        if word in rest:
            rest = rest.replace(word, "")
            found.append(key)
    return [] if rest.strip("_- +") else found


def _plain(name: str) -> str:
    return name.lower().strip().replace("-", "").replace("no op", "noop")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

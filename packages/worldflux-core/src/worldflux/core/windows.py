"""Where the sequences of a phase may begin in episodes of given lengths, and drawing from them.

Every source of batches draws by these rules, so that a phase means the same everywhere. A window
is known by its `begin`: the position, in its episode, of the first of its `context + length`
observations. It is negative where padding comes before the episode. No torch here.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from worldflux.errors import ContractError
from worldflux.training import LeastSampled, Phase

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def random_for(seed: int, phase: Phase, update: int) -> np.random.Generator:
    """The randomness of one update's choice: of nothing but (seed, phase, update)."""
    seeds = _Hashed((seed, phase.name, update))  # an ISeedSequence, which the stubs leave out
    return np.random.Generator(np.random.PCG64(seeds))  # type: ignore[arg-type]


class _Hashed(ISeedSequence):
    """Seeds by a hash of some values: a hundredth of the time that numpy's own mixing takes."""

    def __init__(self, values: tuple[object, ...]) -> None:
        self.values = values

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        """`n_words` words of `dtype`."""
        size = n_words * np.dtype(dtype).itemsize
        return np.frombuffer(hashlib.shake_128(repr(self.values).encode()).digest(size), dtype)


def phase_number(phase: Phase) -> int:
    """A number that stands for the phase's name in what randomness follows from."""
    return zlib.crc32(phase.name.encode())


def spanned(phase: Phase) -> int:
    """Rows that a window reaches over: under a stride also those its outer blocks are made of."""
    k = phase.stride
    return phase.total if k == 1 else (phase.total + 1) * k - 1


def possible(phase: Phase, length: Ints) -> Ints:
    """The number of windows (E,) in episodes of `length` (E,) rows."""
    k = phase.stride
    wanted, context = (phase.length - 1) * k + 1, phase.context * k
    if phase.pad == "none":
        count = length - context - wanted + 1
    elif phase.pad == "after":
        count = length - context
    elif phase.pad == "before":
        count = length - wanted + 1
    else:
        count = length + wanted - 1
        # Between two observations of a window there is room for so short an episode.
        count = np.where((length < k) & (phase.length > 1), 0, count)
        count = np.where(length > 0, count, 0)
    return np.maximum(count, 0)


def first_begin(phase: Phase) -> int:
    """The begin of the first window of any episode; each other one begins a row later."""
    if phase.pad == "before":
        return -phase.context * phase.stride
    return -(phase.total - 1) * phase.stride if phase.pad == "both" else 0


def draw(
    phase: Phase,
    length: Ints,
    random: np.random.Generator,
    drawn: Ints | None = None,
    *,
    batch: int | None = None,
    what: str = "The data",
) -> tuple[Ints, Ints]:
    """Episode (B,) and begin (B,) of `batch` windows in episodes of `length` (E,) rows.

    `drawn` (E,) says how often each episode was drawn before, for `LeastSampled`. `batch` is the
    phase's where it is None; `what` holds the episodes, for the error where no window is possible.
    """
    batch = phase.batch if batch is None else batch
    counts = possible(phase, length)
    if not counts.any():
        raise too_few(phase, length, what)
    chances = counts
    if phase.ends == "oversampled":  # as many as rows: those beyond the last window are that one
        chances = np.where(counts > 0, np.maximum(counts, length), 0)
    if phase.weights is None:
        ends = np.cumsum(chances)
        number = random.integers(ends[-1], size=batch)
        episode = np.searchsorted(ends, number, side="right")
        place = number - (ends - chances)[episode]
    else:
        ends = np.cumsum(_weights(phase, counts, drawn))
        episode = np.searchsorted(ends, random.random(batch) * ends[-1], side="right")
        place = random.integers(chances[episode])
    return episode, first_begin(phase) + np.minimum(place, counts[episode] - 1)


def clipped(phase: Phase, begin: Ints, length: Ints) -> tuple[Ints, Ints, Ints]:
    """First row (B,), count (B,) and padding before (B,) of windows in episodes of `length` (B,).

    Rows count from the episode's first; a window reaches over `spanned` rows, padding and all.
    """
    low = begin - (phase.stride - 1)
    first = np.maximum(low, 0)
    return first, np.minimum(low + spanned(phase), length) - first, first - low


def too_few(phase: Phase, length: Ints, what: str = "The data") -> ContractError:
    """The error of a phase that no sequence can be drawn for."""
    need = {"after": phase.context * phase.stride + 1}
    need["before"] = (phase.length - 1) * phase.stride + 1
    need["none"] = (phase.total - 1) * phase.stride + 1
    rows = need.get(phase.pad, 1)
    longest = int(length.max(initial=0))
    whose = "episode" if phase.boundary == "within" else "environment"
    return ContractError(
        f"{what} holds no {rows} consecutive rows of one {whose}, which phase {phase.name!r} "
        f"needs: it holds {int(length.sum())} rows in all, at most {longest} in a row. Give more "
        "or longer episodes, or ask for shorter sequences."
    )


def _weights(phase: Phase, counts: Ints, drawn: Ints | None) -> Floats:
    """Weights (E,) of the episodes, 0 where one has no window."""
    able = counts > 0
    if isinstance(phase.weights, LeastSampled):
        before = np.zeros(len(counts)) if drawn is None else drawn
        return np.where(able, (1.0 + before) ** -phase.weights.exponent, 0.0)
    found = np.zeros(len(counts))
    parts = np.array_split(np.arange(len(counts)), len(phase.weights or ()))
    for part, weight in zip(parts, phase.weights or (), strict=True):
        chosen = part[able[part]]
        found[chosen] = weight / max(chosen.size, 1)
    return found if found.any() else able.astype(float)


class Drawn:
    """How often each episode was drawn, by phase: the memory of `LeastSampled`."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[int, int]] = {}

    def of(self, phase: Phase, names: Ints) -> Ints | None:
        """Times drawn (E,) of the episodes with these `names`; None where it does not matter."""
        if not isinstance(phase.weights, LeastSampled):
            return None
        known = self.counts.get(phase.name, {})
        return np.array([known.get(name, 0) for name in names.tolist()], np.int64)

    def add(self, phase: Phase, names: Ints, chosen: Ints) -> None:
        """Note the `chosen` (B,) of `names` (E,); names that are gone are forgotten."""
        if not isinstance(phase.weights, LeastSampled):
            return
        known = self.counts.get(phase.name, {})
        for name in names[chosen].tolist():
            known[name] = known.get(name, 0) + 1
        held = set(names.tolist())
        self.counts[phase.name] = {name: n for name, n in known.items() if name in held}

    def to_json(self) -> dict[str, list[list[int]]]:
        """As JSON values."""
        return {phase: [list(pair) for pair in known.items()] for phase, known in
                self.counts.items()}  # fmt: skip

    def restore(self, saved: Mapping[str, list[list[int]]]) -> None:
        """Take over what `to_json` gave."""
        self.counts = {phase: {name: n for name, n in pairs} for phase, pairs in saved.items()}

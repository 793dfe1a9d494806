"""State: the latent of every world model, a dictionary of tensors and some JSON-able notes."""

from __future__ import annotations

import copy as copying
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import torch
from torch import Tensor

from worldflux.core import wire
from worldflux.core.shm import Segment, check_name
from worldflux.describe import Described, Row, on, rows, titled
from worldflux.errors import StateError, did_you_mean

__all__ = ["State", "StateError"]

CACHE = "cache."
"""Tensors named so are caches (a transformer's keys and values), not part of a step's latent."""
_VERSIONS = ("v1",)
_FORMATS = ("binary",)


@dataclass(eq=False, repr=False)
class State(Described):
    """Latent tensors (B, ...) under names the model chooses, and `meta` for anything else."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    _segments: list[Segment] = field(default_factory=list, init=False, repr=False)
    _closed: bool = field(default=False, init=False, repr=False)

    def described(self) -> tuple[str, list[Row]]:
        """A row for each tensor, and one for what `meta` holds."""
        if self._closed and not self.tensors:
            return "State(closed: its shared memory was let go)", []
        held = [row for key, tensor in self.tensors.items() for row in rows(key, tensor)]
        return titled("State", on(self.tensors.values()), [*held, *rows("meta", self.meta)])

    @overload
    def get(self, key: str) -> Tensor | None: ...
    @overload
    def get(self, key: str, default: Tensor) -> Tensor: ...
    @overload
    def get(self, key: str, default: None) -> Tensor | None: ...
    def get(self, key: str, default: Tensor | None = None) -> Tensor | None:
        """The tensor called `key` (B, ...), or `default`."""
        self._require_open()
        return self.tensors.get(key, default)

    def __getitem__(self, key: str) -> Tensor:
        if key in self.tensors:
            return self.tensors[key]
        self._require_open()
        hint = did_you_mean(key, self.tensors)
        raise KeyError(f"State has no tensor {key!r}.{hint} It has: {', '.join(self.tensors)}")

    def __contains__(self, key: object) -> bool:
        return key in self.tensors

    @property
    def batch_size(self) -> int:
        """B, the length of the first tensor's first axis."""
        name, tensor = self._first()
        if tensor.ndim == 0:
            raise StateError(f"tensor {name!r} is 0-d: it has no batch dimension")
        return int(tensor.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the first tensor is."""
        return self._first()[1].device

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """A State of `function(tensor)` for each tensor; meta is copied shallowly."""
        self._require_open()
        return State({k: function(t) for k, t in self.tensors.items()}, dict(self.meta))

    # Algebra: every result keeps meta (of the first State, where there are several)

    @classmethod
    def stack(cls, states: Sequence[State], dim: int = 1) -> State:
        """Steps (B, ...) along a new time axis, (B, T, ...); of the keys that all of them have.

        Of caches only the last step's are kept, without a time axis.
        """
        return cls._joined(states, lambda tensors: torch.stack(tensors, dim), dim)

    @classmethod
    def cat(cls, states: Sequence[State], dim: int = 0) -> State:
        """Rows after one another (dim 0), or pieces of time (dim 1), where the last caches stay."""
        return cls._joined(states, lambda tensors: torch.cat(tensors, dim), dim or None)

    def rows(self, index: Tensor | slice) -> State:
        """The rows that `index` (a mask (B,), numbers (N,) or a slice) chooses, caches included."""
        return self.map(lambda tensor: tensor[index])

    def at(self, t: int) -> State:
        """Step `t` (B, ...) of a sequence (B, T, ...); caches belong to the last step only."""
        last = t in (-1, self._length() - 1)
        return self._picked(lambda tensor: tensor[:, t], caches=last)

    def repeat(self, n: int) -> State:
        """Each row `n` times, copies adjacent: (B, ...) -> (B * n, ...)."""
        return self.map(lambda tensor: tensor.repeat_interleave(n, 0))

    def where(self, mask: Tensor, other: State) -> State:
        """This State's rows where `mask` (B,) holds, those of `other` elsewhere."""
        if self.tensors.keys() != other.tensors.keys():
            differ = sorted(self.tensors.keys() ^ other.tensors.keys())
            raise StateError(f"where needs two States with the same tensors; only one has {differ}")

        def chosen(key: str, tensor: Tensor) -> Tensor:
            return torch.where(mask.reshape(-1, *[1] * (tensor.ndim - 1)), tensor, other[key])

        return self.with_({key: chosen(key, tensor) for key, tensor in self.tensors.items()})

    def with_(self, tensors: Mapping[str, Tensor]) -> State:
        """This State with `tensors` added or put in place of those of the same name."""
        self._require_open()
        return State({**self.tensors, **tensors}, dict(self.meta))

    def only(self, keys: Collection[str]) -> State:
        """This State without the tensors that `keys` leaves out."""
        self._require_open()
        return State({k: t for k, t in self.tensors.items() if k in keys}, dict(self.meta))

    def without_caches(self) -> State:
        """This State as a step before the last is kept: its latent alone."""
        return self._picked(lambda tensor: tensor, caches=False)

    def flat(self) -> State:
        """A sequence (B, T, ...) as rows (B * T, ...), a row's steps adjacent; without caches."""
        return self._picked(lambda tensor: tensor.flatten(0, 1), caches=False)

    def unflat(self, lead: tuple[int, ...]) -> State:
        """Rows (N, ...) as (*lead, ...), where lead multiplies to N; without caches."""
        return self._picked(lambda tensor: tensor.unflatten(0, lead), caches=False)

    @classmethod
    def _joined(
        cls,
        states: Sequence[State],
        join: Callable[[list[Tensor]], Tensor],
        time: int | None,
    ) -> State:
        """`join` applied per key; caches are joined only where no time axis is."""
        if not states:
            raise StateError("there are no States to join")
        for state in states:
            state._require_open()
        keys = [key for key in states[-1].tensors if all(key in state for state in states)]
        kept = {
            key: states[-1][key]
            if key.startswith(CACHE) and time is not None
            else join([state[key] for state in states])
            for key in keys
        }
        return cls(kept, dict(states[0].meta))

    def _picked(self, function: Callable[[Tensor], Tensor], caches: bool) -> State:
        """`function` of all but caches, which stay as they are or go."""
        self._require_open()
        return State(
            {
                key: tensor if key.startswith(CACHE) else function(tensor)
                for key, tensor in self.tensors.items()
                if caches or not key.startswith(CACHE)
            },
            dict(self.meta),
        )

    def _length(self) -> int:
        self._first()
        for name, tensor in self.tensors.items():
            if not name.startswith(CACHE):
                return int(tensor.shape[1])
        raise StateError(f"State holds caches alone ({', '.join(self.tensors)}): it has no steps")

    def to(self, device: str | torch.device) -> State:
        """This State on `device`."""
        return self.map(lambda tensor: tensor.to(device))

    def detach(self) -> State:
        """This State cut off from the autograd graph; the tensors share their memory."""
        return self.map(Tensor.detach)

    def clone(self) -> State:
        """Independent copy: tensors cloned, meta copied deeply."""
        self._require_open()
        return State({k: t.clone() for k, t in self.tensors.items()}, copying.deepcopy(self.meta))

    def validate(self) -> None:
        """Raise `StateError` unless all values are tensors with one common batch dimension."""
        self._first()
        for name, tensor in self.tensors.items():
            if not isinstance(tensor, Tensor):
                raise StateError(f"{name!r} is a {type(tensor).__name__}, not a tensor")
            if tensor.ndim == 0:
                raise StateError(f"tensor {name!r} is 0-d: it has no batch dimension")
        sizes = {name: tensor.shape[0] for name, tensor in self.tensors.items()}
        if len(set(sizes.values())) > 1:
            raise StateError(f"batch size mismatch: {sizes}")

    def serialize(self, version: str = "v1", format: str = "binary") -> bytes:
        """Prefix, JSON header, raw tensor bytes (`core/wire.py`); tensors come back on the CPU."""
        if version not in _VERSIONS:
            raise StateError(f"unknown version {version!r}. Versions: {', '.join(_VERSIONS)}")
        if format not in _FORMATS:
            raise StateError(f"unknown format {format!r}. Formats: {', '.join(_FORMATS)}")
        self._require_open()
        return b"".join(wire.encode(self.tensors, self.meta)[1])

    @classmethod
    def deserialize(cls, data: wire.Bytes, copy: bool = True) -> State:
        """The State in `data`. With `copy` its tensors are writable and own their memory.

        `copy=False` costs no copy: the tensors alias `data` and keep it alive (a bytearray cannot
        be resized meanwhile). Over bytes or another read-only buffer they must only be read: torch
        has no read-only tensors, and writing would change `data`, or crash over read-only pages.
        """
        return cls(*wire.decode(data, copy))

    def to_shared_memory(
        self, namespace: str = "worldflux-state", *, allow_copy_from_cuda: bool = False
    ) -> dict[str, Any]:
        """Copy this State into a new shared-memory segment; a JSON-able descriptor to attach by.

        The segment outlives every process until someone unlinks it: `close_shared_memory(
        unlink=True)` here or on an attached State, or `State.unlink_shared_memory(descriptor)`.
        """
        self._require_open()
        away = [
            k for k, t in self.tensors.items() if isinstance(t, Tensor) and t.device.type != "cpu"
        ]
        if away and not allow_copy_from_cuda:
            raise StateError(
                f"{away} are on {self.tensors[away[0]].device}: pass allow_copy_from_cuda=True to "
                f"copy them to the CPU, or call .to('cpu') first"
            )
        header, chunks = wire.encode(self.tensors, self.meta)
        segment = Segment.create(namespace, chunks)
        self._segments.append(segment)
        nbytes = sum(len(chunk) for chunk in chunks)
        return {"name": segment.name, "nbytes": nbytes, **header.to_json()}

    @classmethod
    def from_shared_memory(cls, descriptor: Mapping[str, Any], copy: bool = False) -> State:
        """Attach to the State `descriptor` tells of; writes to its tensors are seen by all.

        With `copy` the tensors are its own, and the segment is let go at once.
        """
        name, nbytes, promised = _read_descriptor(descriptor)
        segment = Segment.attach(name, nbytes)
        found, start = wire.read_header(segment.view())
        difference = promised.difference(found)
        if not difference and start + found.tensor_bytes != nbytes:
            difference = f"{nbytes} bytes against {start + found.tensor_bytes}"
        if difference:
            raise StateError(
                f"shared memory {name!r} does not hold what its descriptor says: {difference:.400}"
            )
        state = cls(wire.view_tensors(found, segment.view(), start), found.meta)
        state._segments.append(segment)
        if copy:
            state.tensors = {k: t.clone() for k, t in state.tensors.items()}
            segment.close({})
        return state

    def close_shared_memory(self, unlink: bool = False) -> None:
        """Let go of attached memory: this State is empty afterwards. Optionally unlink the name.

        Raises `StateError`, and changes nothing, while a caller still holds one of the tensors.
        """
        for segment in self._segments:
            if segment.mapping is not None:
                segment.close(self.tensors)
                self._closed = True
            if unlink:
                segment.unlink()
        if unlink:
            self._segments.clear()

    @staticmethod
    def unlink_shared_memory(descriptor: Mapping[str, Any]) -> None:
        """Remove the segment's name; attached States stay valid. Twice is no error."""
        Segment(check_name(_field(descriptor, "name"))).unlink()

    def __getstate__(self) -> dict[str, Any]:
        # A copied State owns no segment: only the original closes and unlinks it.
        return {**self.__dict__, "_segments": []}

    def _first(self) -> tuple[str, Tensor]:
        for name, tensor in self.tensors.items():
            return name, tensor
        self._require_open()
        raise StateError("State is empty: it has no tensors, so no batch size and no device")

    def _require_open(self) -> None:
        if self._closed and not self.tensors:
            raise StateError("this State's shared memory was closed; attach to it again to read it")


def _field(descriptor: Mapping[str, Any], key: str) -> Any:
    if not isinstance(descriptor, Mapping) or key not in descriptor:
        raise StateError(f"not a shared-memory descriptor: no {key!r} in {descriptor!r:.120}")
    return descriptor[key]


def _read_descriptor(descriptor: Mapping[str, Any]) -> tuple[str, int, wire.Header]:
    name, nbytes = check_name(_field(descriptor, "name")), _field(descriptor, "nbytes")
    if type(nbytes) is not int or nbytes <= wire.PREFIX.size:
        raise StateError(f"descriptor of {name!r} has an impossible size: {nbytes!r:.120}")
    return name, nbytes, wire.Header.from_json(dict(descriptor))

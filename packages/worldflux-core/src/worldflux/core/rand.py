"""One argument for randomness: `Rand`, and the samplers that numbers are drawn from.

A function that samples takes `rand: Rand | None = None` and asks it for tensors by name. Where
they come from is the caller's business: torch's global generator (None), a generator, tensors
that the caller forces by name (published noise in a test, say), or tensors drawn beforehand for
compiled code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from worldflux.errors import ContractError, did_you_mean


class Sampler(Protocol):
    """Fresh numbers of `shape` on `device`, from `generator` (which lives there)."""

    def __call__(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Tensor: ...


def normal(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, device=device, generator=generator)


def uniform(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Numbers in [0, 1)."""
    return torch.rand(shape, device=device, generator=generator)


def exponential(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Exponential numbers of rate 1: `(p / exponential).argmax(-1)` is a categorical sample."""
    return torch.empty(shape, device=device).exponential_(generator=generator)


def gumbel(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Standard Gumbel numbers: `(logits + gumbel).argmax(-1)` is a categorical sample."""
    return -exponential(shape, device, generator).log()


def bernoulli(p: float) -> Sampler:
    """True with probability `p`."""

    def draw(
        shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        return torch.rand(shape, device=device, generator=generator) < p

    return draw


def randint(n: int) -> Sampler:
    """Integers from 0 to n - 1."""

    def draw(
        shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        return torch.randint(n, shape, device=device, generator=generator)

    return draw


Key = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Request:
    shape: tuple[int, ...]
    sampler: Sampler
    device: torch.device
    shared: bool


@dataclass(frozen=True)
class Rand:
    """Where random tensors come from; frozen, so that it can be handed on with a change.

    `draws` forces tensors by their full names ("imagined/stoch"); what is not forced comes from
    `generator`, or from torch's global one. `shared_generator` is equal on all ranks of a
    distributed run and used for draws that are `shared`.
    """

    generator: torch.Generator | None = None
    draws: Mapping[str, Tensor] = field(default_factory=dict)
    shared_generator: torch.Generator | None = None
    prefix: str = ""
    _steps: tuple[tuple[int, int], ...] = ()
    _part: tuple[int, int] | None = None
    _used: set[str] = field(default_factory=set, compare=False, repr=False)
    _requests: dict[Key, _Request] | None = field(default=None, compare=False, repr=False)
    _drawn: Mapping[Key, Tensor] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def seeded(cls, seed: int, device: torch.device | str = "cpu") -> Rand:
        """A Rand with a generator of its own."""
        return cls(torch.Generator(device).manual_seed(seed))

    def draw(
        self,
        name: str,
        shape: tuple[int, ...],
        sampler: Sampler,
        *,
        device: torch.device | str | None = None,
        shared: bool = False,
    ) -> Tensor:
        """The tensor called `name` of `shape`, on `device` (the generator's, or the CPU).

        Rows come first in `shape`. `shared` numbers have no rows: they are equal in all parts of
        an accumulated batch, and on all ranks.
        """
        source = self.shared_generator if shared and self.shared_generator else self.generator
        home = torch.device(device or (source.device if source is not None else "cpu"))
        forced = self.given(name, shared=shared)
        if forced is not None:
            return self._checked(name, forced, shape).to(home)
        key = self._key(name)
        if self._drawn is not None and key in self._drawn:
            return self._checked(name, self._drawn[key], shape)
        if self._requests is not None:
            return self._record(key, _Request(shape, sampler, home, shared))
        return self._fresh(shape, sampler, home, source, shared)

    def given(self, name: str, *, shared: bool = False) -> Tensor | None:
        """The tensor that the caller forces for `name`, or None: an action to take, say."""
        full = self.prefix + name
        if full not in self.draws:
            return None
        self._used.add(full)
        tensor = self.draws[full]
        for dim, t in self._steps:
            tensor = tensor.select(dim, t)
        return tensor if shared else self._own_rows(tensor)

    def under(self, prefix: str) -> Rand:
        """The same, for draws whose names begin with `prefix` ("imagined/")."""
        return replace(self, prefix=self.prefix + prefix)

    def at(self, t: int, dim: int = 0) -> Rand:
        """The same, for step `t`: forced tensors have one more axis, `dim`, of which t is taken."""
        return replace(self, _steps=(*self._steps, (dim, t)))

    def drawn(self, function: Callable[..., Any], *args: Any) -> Rand:
        """Everything that `function(*args, rand=...)` asks for, drawn before it runs.

        `function` runs once on tensors without data, which finds names and shapes in the order of
        use: eager and compiled code get the same numbers. It must be a computation that changes no
        buffer. `redrawn` gives fresh tensors for the next call without running it again.
        """
        requests: dict[Key, _Request] = {}
        recording = replace(self, _requests=requests)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
            fake = tree_map_only(Tensor, mode.from_tensor, args)
            function(*fake, rand=recording)
        return replace(self, _requests=requests).redrawn()

    def redrawn(self) -> Rand:
        """Fresh tensors for what an earlier `drawn` found."""
        if self._requests is None:
            raise ContractError("Nothing was recorded yet: call drawn(function, *args) first.")
        tensors = {}
        for key, request in self._requests.items():
            shared = request.shared and self.shared_generator is not None
            source = self.shared_generator if shared else self.generator
            tensors[key] = self._fresh(
                request.shape, request.sampler, request.device, source, request.shared
            )
        return replace(self, _drawn=tensors)

    def asked(self, function: Callable[..., Any], *args: Any) -> dict[str, Tensor]:
        """The tensors that `function(*args, rand=...)` asks for, by full name, to force elsewhere.

        It runs `function` once, whose own numbers come from torch's global generator.
        """
        requests: dict[Key, _Request] = {}
        function(*args, rand=replace(self, _requests=requests))
        found = replace(self, _requests=requests).redrawn()._drawn or {}
        names = {name: tensor for (name, steps), tensor in found.items() if not steps}
        if len(names) < len(found):
            raise ContractError("`asked` tells of one step: the function took several (`at`).")
        return names

    def parts(self, count: int) -> Iterator[Rand]:
        """One Rand for each of `count` equal parts of a batch: draws of the whole batch, cut.

        All parts together see the numbers that the whole batch would; afterwards the generator
        stands where it would.
        """
        generator = self.generator
        if generator is None:
            seed = int(torch.randint(2**62, ()))
            generator = torch.Generator().manual_seed(seed)
        shared = self.shared_generator
        begun = generator.get_state(), shared.get_state() if shared is not None else None
        for part in range(count):
            generator.set_state(begun[0])
            if shared is not None and begun[1] is not None:
                shared.set_state(begun[1])
            yield replace(self, generator=generator, _part=(part, count))

    def check_used(self) -> None:
        """Raise `ContractError` for a forced tensor that nothing asked for (a wrong name, say)."""
        for name in self.draws:
            if name not in self._used:
                asked = ", ".join(sorted(self._used)) or "none of them"
                raise ContractError(
                    f"Nothing asked for the draw {name!r}.{did_you_mean(name, self._used)} "
                    f"Asked for: {asked}."
                )

    def _key(self, name: str) -> Key:
        return self.prefix + name, tuple(t for _, t in self._steps)

    def _checked(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        if tuple(tensor.shape) != tuple(shape):
            raise ContractError(
                f"Draw {self.prefix + name!r} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(shape)}."
            )
        return tensor

    def _record(self, key: Key, request: _Request) -> Tensor:
        assert self._requests is not None
        if key in self._requests:
            raise ContractError(
                f"The draw {key[0]!r} is asked for twice in one call. Give the two different names "
                "(`under`), or tell its steps apart (`at`)."
            )
        self._requests[key] = request
        return request.sampler(request.shape, request.device, None)

    def _fresh(
        self,
        shape: tuple[int, ...],
        sampler: Sampler,
        device: torch.device,
        source: torch.Generator | None,
        shared: bool,
    ) -> Tensor:
        home = device if source is None else source.device
        if self._part is None or shared:
            return sampler(tuple(shape), home, source).to(device)
        whole = (shape[0] * self._part[1], *shape[1:])
        return self._own_rows(sampler(whole, home, source).to(device))

    def _own_rows(self, tensor: Tensor) -> Tensor:
        if self._part is None:
            return tensor
        part, count = self._part
        rows = tensor.shape[0] // count
        return tensor[part * rows : (part + 1) * rows]
